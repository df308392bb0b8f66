"""The folder of a run: where everything goes, and what may be replaced."""

import itertools
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.files import require_writable, write_text
from prod9.own_files import matching, read_record, refuse_foreign, remove_own
from prod9.runtime.console import say
from prod9.training.checkpoint_files import LAST, PREVIOUS, exists_in, read_last
from prod9.training.history import keep_history
from prod9.training.resume_position import Position

CONFIG_KEY = "prod9_config"
"""Key of the resolved configuration (YAML) inside a Lightning checkpoint."""
_CONFIG_KEYS = {"output_dir", "data", "model", "trainer", "callbacks"}
"""What the ``config.yaml`` of a run holds at least."""
_REPLACED = (  # the checkpoints first: the new run would be resumed from one that stayed
    *(f"checkpoints/{name}.ckpt" for name in ("last", "previous", ".previous", "next", "torn")),
    "checkpoints/best-epoch=*.ckpt",
    *("previews/batch-*.png", "previews/levels-*.png"),
    *("history/metrics.csv", "history/metrics-until-part-*.csv"),
    *("tensorboard/events.out.tfevents.*", "tensorboard/hparams.yaml"),
    "nonfinite/step-*.npz",
    *("metrics.json", "transformer.pt", "report.html", "reconstruction.csv"),
)
"""What ``--overwrite`` replaces in the folder of a run, beside its ``config.yaml``."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside ``output_dir``."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Lightning checkpoints; ``last.ckpt`` is what ``--resume`` reads."""
        return self.root / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint; the one before it lies beside it."""
        return self.checkpoints / LAST

    @property
    def previews(self) -> Path:
        """Montages made while training."""
        return self.root / "previews"

    @property
    def history(self) -> Path:
        """Logged values as CSV."""
        return self.root / "history"

    @property
    def tensorboard(self) -> Path:
        """Logged values and previews for TensorBoard."""
        return self.root / "tensorboard"

    @property
    def tokens(self) -> Path:
        """Token stores (Stage 2)."""
        return self.root / "tokens"

    @property
    def transformer(self) -> Path:
        """The trained transformer (Stage 2)."""
        return self.root / "transformer.pt"

    def check(self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool) -> None:
        """Find out whether :meth:`claim` would succeed; change nothing.

        Raises:
            Prod9Error: the folder holds a run and neither ``resume`` nor ``overwrite`` is given;
                there is nothing to resume; files that prod9 did not write are in the way; it
                cannot be written.
        """
        require_writable(self.root)
        if resume:
            self._check_resumable(config)
            return
        if not self._is_ours():
            refuse_foreign([self.config, *matching(self.root, _REPLACED)])
        if not overwrite and (self.can_resume() or self.transformer.exists()):
            raise Prod9Error(
                f"{self.root} already holds a run; continue it with --resume, replace it with "
                "--overwrite, or choose another output_dir."
            )

    def claim(self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool) -> None:
        """Make the folder this run's own.

        Raises:
            Prod9Error: as :meth:`check`.
        """
        self.check(config, resume=resume, overwrite=overwrite)
        if resume:
            self._prepare_to_resume()
        elif overwrite:
            if not self.config.exists():  # it shows whose the rest is, should this be killed now
                write_text(self.config, dump(config))
            remove_own(self.root, matching(self.root, _REPLACED))
        elif (
            self.config.exists()
        ):  # of a run that left no checkpoint: its values are not this one's
            _put_aside(self.history)
        write_text(self.config, dump(config))

    def _is_ours(self) -> bool:
        """Whether a configuration or a checkpoint shows that prod9 wrote what is here."""
        if read_record(self.config, _CONFIG_KEYS) is not None:
            return True
        with suppress(Prod9Error):
            return not self.config.exists() and bool(self.resume_point().config)
        return False

    def can_resume(self) -> bool:
        """Whether there is a checkpoint, whole or torn."""
        return exists_in(self.checkpoints)

    def resume_point(self) -> "ResumePoint":
        """Find the newest whole checkpoint.

        Raises:
            Prod9Error: there is none, or it is not prod9's.
        """
        stamps: list[tuple[int, int]] = []
        for path in (self.last_checkpoint, self.last_checkpoint.with_name(PREVIOUS)):
            with suppress(FileNotFoundError):
                stamps.append((path.stat().st_mtime_ns, path.stat().st_size))
        return _resume_point(self.checkpoints, tuple(stamps))

    def _prepare_to_resume(self) -> None:
        """Put aside what is torn, and the values of before; say what is gone on from."""
        point = self.resume_point()
        path, torn = point.path, point.torn
        if torn is not None:
            torn.replace(torn.with_name("torn.ckpt"))  # else it would become the previous one
            say(f"{torn} is torn (kept as torn.ckpt); the run goes on from {path}")
        say(f"resuming {point.position} (step {point.position.steps})")
        keep_history(self.history)

    def _check_resumable(self, config: Stage1Config | Stage2Config) -> None:
        point = self.resume_point()
        theirs = yaml.safe_load(point.config)
        mine = yaml.safe_load(dump(config))
        changed = sorted(_differences(theirs, mine))
        # The length of a run, its devices and its pictures may change; what is learned may not.
        fixed = [key for key in changed if key.split(".")[0] in ("model", "loss", "seed")]
        fixed += [key for key in changed if key in ("data.dataset_name", "data.size")]
        fixed += [key for key in changed if key.startswith(("data.preprocessing.", "data.split_"))]
        if config.data.dataset_name == "brats":  # elsewhere it does not decide what is trained on
            fixed += [key for key in changed if key == "sliding_window.roi_size"]
            if isinstance(config, Stage2Config):  # they decide the tokens
                tokens = ("sliding_window.overlap", "sliding_window.mode")
                fixed += [key for key in changed if key in tokens]
        if fixed:
            raise Prod9Error(
                f"{point.path} is a checkpoint of another configuration: {', '.join(fixed)} "
                "differ; use that configuration, or another output_dir."
            )


def _put_aside(folder: Path) -> None:
    """Rename ``history`` to ``history-1``, or the next number that is free."""
    if folder.exists():
        numbers = itertools.count(1)
        names = (folder.with_name(f"{folder.name}-{number}") for number in numbers)
        folder.rename(next(name for name in names if not name.exists()))


class ResumePoint(NamedTuple):
    """What a run goes on from."""

    path: Path
    position: Position
    config: str
    """YAML."""
    torn: Path | None
    """A newer checkpoint that cannot be read."""


@lru_cache(maxsize=4)  # it is asked for more than once, and reading takes as long as the file does
def _resume_point(folder: Path, stamps: tuple[tuple[int, int], ...]) -> ResumePoint:
    return read_point(folder)


def read_point(folder: Path) -> ResumePoint:
    """Read what a run with the checkpoints of ``folder`` would go on from.

    Raises:
        Prod9Error: there is no whole checkpoint, or it is not prod9's.
    """
    found = read_last(folder)
    config, position = _of_ours(found.path, found.content)
    return ResumePoint(found.path, position, config, found.torn)


def _of_ours(path: Path, checkpoint: dict[str, Any]) -> tuple[str, Position]:
    """Return configuration and position."""
    try:
        return str(checkpoint[CONFIG_KEY]), Position.of(checkpoint)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Prod9Error(
            f"{path} is not a checkpoint of prod9's; remove it from the run's folder."
        ) from error


def _differences(a: Any, b: Any, prefix: str = "") -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        found: set[str] = set()
        for key in a.keys() | b.keys():
            found |= _differences(a.get(key), b.get(key), f"{prefix}{key}.")
        return found
    return set() if a == b else {prefix.removesuffix(".")}
