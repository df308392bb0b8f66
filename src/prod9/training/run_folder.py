"""The folder of a run: its files, and what ``--resume`` and ``--overwrite`` may do to them."""

import itertools
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.files import remove_leftovers, require_writable, write_text
from prod9.own_files import matching, read_record, refuse_foreign, remove_own
from prod9.runtime.console import say
from prod9.training.checkpoint_files import LAST, PREVIOUS, exists_in, read_last
from prod9.training.resume_position import Position

CONFIG_KEY = "prod9_config"
"""Key of a checkpoint: the resolved configuration (YAML)."""
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
        self.last_checkpoint = self.checkpoints / LAST
        """The checkpoint that ``--resume`` reads; the one before it is beside it."""
        self.previews = root / "previews"
        """Pictures made while training."""
        self.history = root / "history"
        """Logged values as CSV."""
        self.tensorboard = root / "tensorboard"
        self.tokens = root / "tokens"
        """Token stores (Stage 2)."""
        self.transformer = root / "transformer.pt"
        """The trained transformer (Stage 2)."""

    def check(self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool) -> None:
        """Check that :meth:`claim` would succeed; change nothing.

        Raises:
            Prod9Error: the folder holds a run and neither ``resume`` nor ``overwrite`` is given;
                there is nothing to resume; files that prod9 did not write are in the way; it
                cannot be written.
        """
        require_writable(self.root)
        if resume:
            _require_same_training(self.resume_point(), config)
            return
        if not self._is_ours():
            refuse_foreign([self.config, *matching(self.root, _REPLACED)])
        if not overwrite and (self.can_resume() or self.transformer.exists()):
            raise Prod9Error(
                f"{self.root} already holds a run; continue it with --resume, replace it with "
                "--overwrite, or choose another output_dir."
            )

    def claim(self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool) -> None:
        """Prepare the folder for this run.

        Raises:
            Prod9Error: as :meth:`check`.
        """
        self.check(config, resume=resume, overwrite=overwrite)
        for folder in (self.root, self.checkpoints, self.previews, self.history):
            remove_leftovers(folder, sole_writer=True)  # one run at a time writes here
        if resume:
            self._prepare_to_resume()
        elif overwrite:
            if not self.config.exists():  # marks the folder as prod9's, should this be interrupted
                write_text(self.config, dump(config))
            remove_own(self.root, matching(self.root, _REPLACED))
        elif self.config.exists():  # an earlier run without a checkpoint: its values are kept apart
            _rename_aside(self.history)
        write_text(self.config, dump(config))

    def _is_ours(self) -> bool:
        """Whether a configuration or a checkpoint of prod9 is here."""
        if read_record(self.config, _CONFIG_KEYS) is not None:
            return True
        with suppress(Prod9Error):
            return not self.config.exists() and bool(self.resume_point().config)
        return False

    def can_resume(self) -> bool:
        """Whether there is a checkpoint, readable or not."""
        return exists_in(self.checkpoints)

    def resume_point(self) -> "ResumePoint":
        """Read the newest readable checkpoint; a file that has not changed is read once.

        Raises:
            Prod9Error: there is none, or prod9 did not write it.
        """
        stamps: list[tuple[int, int]] = []
        for path in (self.last_checkpoint, self.last_checkpoint.with_name(PREVIOUS)):
            with suppress(FileNotFoundError):
                stamps.append((path.stat().st_mtime_ns, path.stat().st_size))
        return _resume_point(self.checkpoints, tuple(stamps))

    def _prepare_to_resume(self) -> None:
        """Rename a torn checkpoint and the values so far; print where the run continues."""
        point = self.resume_point()
        if point.torn is not None:  # else it would become the previous checkpoint
            point.torn.replace(point.torn.with_name("torn.ckpt"))
            say(f"{point.torn} is torn (kept as torn.ckpt); the run goes on from {point.path}")
        say(f"resuming {point.position} (step {point.position.steps})")
        keep_history(self.history)


class ResumePoint(NamedTuple):
    """The checkpoint that a run continues from."""

    path: Path
    position: Position
    config: str
    """YAML."""
    torn: Path | None
    """A newer checkpoint that cannot be read."""


@lru_cache(maxsize=4)
def _resume_point(folder: Path, stamps: tuple[tuple[int, int], ...]) -> ResumePoint:
    return read_point(folder)


def read_point(folder: Path) -> ResumePoint:
    """Read the newest readable checkpoint of ``folder``.

    Raises:
        Prod9Error: there is none, or prod9 did not write it.
    """
    found = read_last(folder)
    try:
        config, position = str(found.content[CONFIG_KEY]), Position.of(found.content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Prod9Error(
            f"{found.path} is not a checkpoint of prod9's; remove it from the run's folder."
        ) from error
    return ResumePoint(found.path, position, config, found.torn)


def keep_history(folder: Path) -> None:
    """Rename ``metrics.csv`` to ``metrics-until-part-N.csv``: a resumed run starts a new file.

    Both files have values of a step that is repeated;
    :func:`prod9.report.curves.read_history` takes those of the newer one.
    """
    newest = folder / "metrics.csv"
    if newest.exists():
        parts = len(list(folder.glob("metrics-until-*.csv")))
        newest.replace(folder / f"metrics-until-part-{parts + 1:05d}.csv")


def _rename_aside(folder: Path) -> None:
    """Rename ``history`` to ``history-1``, or the next free number."""
    if folder.exists():
        names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(1))
        folder.rename(next(name for name in names if not name.exists()))


def _require_same_training(point: ResumePoint, config: Stage1Config | Stage2Config) -> None:
    """Refuse to resume with other data, networks or losses; other keys may change."""
    changed = sorted(_differences(yaml.safe_load(point.config), yaml.safe_load(dump(config))))
    fixed = ["model.", "loss.", "data.preprocessing.", "data.split_"]
    exact = ["seed", "data.dataset_name", "data.size"]
    if config.data.dataset_name == "brats":  # elsewhere windows do not decide what is trained on
        exact.append("sliding_window.roi_size")
        if isinstance(config, Stage2Config):  # they decide the tokens
            exact += ["sliding_window.overlap", "sliding_window.mode"]
    found = [key for key in changed if key in exact or key.startswith(tuple(fixed))]
    if found:
        raise Prod9Error(
            f"{point.path} is a checkpoint of another configuration: {', '.join(found)} "
            "differ; use that configuration, or another output_dir."
        )


def _differences(a: Any, b: Any, prefix: str = "") -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        found: set[str] = set()
        for key in a.keys() | b.keys():
            found |= _differences(a.get(key), b.get(key), f"{prefix}{key}.")
        return found
    return set() if a == b else {prefix.removesuffix(".")}
