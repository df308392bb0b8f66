"""The folder of a run: its files, and what ``--resume`` and ``--overwrite`` may do to them."""

import itertools
from pathlib import Path

from prod9.config import Stage1Config, Stage2Config
from prod9.config.data import CroppedSourceConfig
from prod9.config.entries import parse
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.files import remove_leftovers, require_writable, write_text
from prod9.own_files import matching, read_record, refuse_foreign, remove_own
from prod9.runtime.console import say
from prod9.training.checkpoint_files import Saved, exists_in, read_last

_CONFIG_KEYS = {"output_dir", "data", "model", "trainer", "callbacks"}
"""Keys that the ``config.yaml`` of every run has."""
_REPLACED = (  # the checkpoints first: the new run could resume from one that is left
    *(f"checkpoints/{name}.ckpt" for name in ("last", "previous", ".previous", "next", "torn")),
    "checkpoints/best-epoch=*.ckpt",
    *("previews/batch-*.png", "previews/levels-*.png"),
    *("history/metrics.csv", "history/metrics-until-part-*.csv"),
    *("tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml"),
    "nonfinite/step-*.npz",
    *("metrics.json", "transformer.pt", "report.html", "reconstruction.csv"),
)
"""Files that ``--overwrite`` removes from the folder of a run, beside its ``config.yaml``."""


class RunFolder:
    """Paths inside ``output_dir``, and what may happen to them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        """The resolved configuration; it marks a folder as prod9's."""
        self.checkpoints = root / "checkpoints"
        self.previews = root / "previews"
        self.history = root / "history"
        """Logged values as CSV."""
        self.tensorboard = root / "tensorboard"
        self.tokens = root / "tokens"
        """Token stores (Stage 2)."""
        self.transformer = root / "transformer.pt"
        """The trained transformer (Stage 2)."""

    def check(
        self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool
    ) -> Saved | None:
        """Check that :meth:`claim` would succeed; change nothing.

        Returns:
            Where the run continues, with ``resume``.

        Raises:
            Prod9Error: the folder holds a run and neither ``resume`` nor ``overwrite`` is given;
                there is nothing to resume; files that prod9 did not write are in the way; it
                cannot be written.
        """
        require_writable(self.root)
        if resume:
            point = read_last(self.checkpoints)
            _require_same_training(point, config)
            return point
        if not self._is_ours():
            refuse_foreign([self.config, *matching(self.root, _REPLACED)])
        if not overwrite and (self.can_resume() or self.transformer.exists()):
            raise Prod9Error(
                f"{self.root} already holds a run; continue it with --resume, replace it with "
                "--overwrite, or choose another output_dir."
            )
        return None

    def claim(
        self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool
    ) -> Saved | None:
        """Prepare the folder for this run; return where it continues, with ``resume``.

        Raises:
            Prod9Error: as :meth:`check`.
        """
        point = self.check(config, resume=resume, overwrite=overwrite)
        for folder in (self.root, self.checkpoints, self.previews, self.history):
            remove_leftovers(folder, sole_writer=True)  # one run at a time writes here
        if point is not None:
            if point.torn is not None:  # else it would become the previous checkpoint
                point.torn.replace(point.torn.with_name("torn.ckpt"))
                say(f"{point.torn} is torn (kept as torn.ckpt); the run goes on from {point.path}")
            say(f"resuming {point.position} (step {point.position.steps})")
            keep_history(self.history)
        elif overwrite:
            if not self.config.exists():  # marks the folder as prod9's, should this be interrupted
                write_text(self.config, dump(config))
            remove_own(self.root, matching(self.root, _REPLACED))
        elif self.config.exists() and self.history.exists():  # of a run without a checkpoint
            names = (self.root / f"history-{number}" for number in itertools.count(1))
            self.history.rename(next(name for name in names if not name.exists()))
        write_text(self.config, dump(config))
        return point

    def _is_ours(self) -> bool:
        """Whether a configuration or a checkpoint of prod9 is here."""
        if self.config.exists():
            return read_record(self.config, _CONFIG_KEYS) is not None
        try:
            return bool(read_last(self.checkpoints).config)
        except Prod9Error:
            return False

    def can_resume(self) -> bool:
        """Whether there is a checkpoint, readable or not."""
        return exists_in(self.checkpoints)


def keep_history(folder: Path) -> None:
    """Rename ``metrics.csv`` to ``metrics-until-part-N.csv``: a resumed run starts a new file.

    Both files have values of a step that is repeated;
    :func:`prod9.report.curves.read_history` takes those of the newer one.
    """
    newest = folder / "metrics.csv"
    if newest.exists():
        parts = len(list(folder.glob("metrics-until-*.csv")))
        newest.replace(folder / f"metrics-until-part-{parts + 1:05d}.csv")


def _require_same_training(point: Saved, config: Stage1Config | Stage2Config) -> None:
    """Refuse to resume with other data, networks or losses; other keys may change."""
    texts = (point.config, dump(config))
    before, now = (parse(text, str(point.path), lines=False) for text in texts)
    differing = {keys for keys in before.keys() | now.keys() if before.get(keys) != now.get(keys)}
    changed = sorted(".".join(keys) for keys in differing)
    fixed = ["model.", "loss.", "data.preprocessing.", "data.split_"]
    fixed += ["seed", "data.dataset_name", "data.size"]
    if isinstance(config.data, CroppedSourceConfig):  # elsewhere windows do not decide the crops
        fixed.append("sliding_window.roi_size")
        if isinstance(config, Stage2Config):  # they decide the tokens
            fixed += ["sliding_window.overlap", "sliding_window.mode"]
    found = [key for key in changed if key.startswith(tuple(fixed))]
    if found:
        raise Prod9Error(
            f"{point.path} is a checkpoint of another configuration: {', '.join(found)} "
            "differ; use that configuration, or another output_dir."
        )
