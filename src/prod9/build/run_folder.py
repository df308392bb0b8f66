"""The folder of a run: where everything goes, and what may be replaced."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import dump
from prod9.errors import UserError
from prod9.files import require_writable, write_text
from prod9.plain import read_plain

CONFIG_KEY = "prod9_config"
"""Key of the resolved configuration (YAML) inside a Lightning checkpoint."""


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
        """The newest checkpoint."""
        return self.checkpoints / "last.ckpt"

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

    @property
    def metrics(self) -> Path:
        """Figures of ``test``."""
        return self.root / "metrics.json"

    @property
    def figures(self) -> tuple[Path, ...]:
        """What ``test`` writes beside the figures."""
        return self.root / "report.html", self.root / "reconstruction.csv"

    def check(self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool) -> None:
        """Find out whether :meth:`claim` would succeed; change nothing.

        Raises:
            UserError: the folder holds a run and neither ``resume`` nor ``overwrite`` is given;
                there is nothing to resume; it cannot be written.

        """
        require_writable(self.root)
        if resume:
            self._check_resumable(config)
        elif not overwrite and (self.last_checkpoint.exists() or self.transformer.exists()):
            raise UserError(
                f"{self.root} already holds a run; continue it with --resume, replace it with "
                "--overwrite, or choose another output_dir."
            )

    def claim(self, config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool) -> None:
        """Make the folder this run's own.

        Raises:
            UserError: as :meth:`check`.

        """
        self.check(config, resume=resume, overwrite=overwrite)
        if resume:
            self._keep_history()
        elif overwrite and self.config.exists():  # else nothing here is prod9's
            for part in (self.checkpoints, self.previews, self.history, self.tensorboard):
                shutil.rmtree(part, ignore_errors=True)
            for file in (self.config, self.metrics, self.transformer, *self.figures):
                file.unlink(missing_ok=True)
        write_text(self.config, dump(config))

    def _keep_history(self) -> None:
        """Put earlier values aside: Lightning's CSV logger begins its file anew."""
        values = self.history / "metrics.csv"
        if values.exists():
            values.replace(self.history / f"metrics-until-epoch-{self.epochs_done():05d}.csv")

    def epochs_done(self) -> int:
        """Return how many epochs lie behind the last checkpoint (all are made at an epoch's end).

        Raises:
            UserError: it is torn or foreign.

        """
        return int(read_checkpoint(self.last_checkpoint)["epoch"]) + 1

    def _check_resumable(self, config: Stage1Config | Stage2Config) -> None:
        path = self.last_checkpoint
        if not path.exists():
            raise UserError(
                f"there is no checkpoint {path} to resume from; start without --resume."
            )
        theirs = yaml.safe_load(read_checkpoint(path)[CONFIG_KEY])
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
            raise UserError(
                f"{path} is a checkpoint of another configuration: {', '.join(fixed)} "
                "differ; use that configuration, or another output_dir."
            )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a Lightning checkpoint of prod9's without unpickling code.

    Raises:
        UserError: torn or foreign.

    """
    content = read_plain(path, "delete it and resume from an older one renamed to last.ckpt")
    if not isinstance(content, dict) or CONFIG_KEY not in content:
        raise UserError(f"{path} is not a checkpoint of prod9's; remove it from the run's folder.")
    return content


def _differences(a: Any, b: Any, prefix: str = "") -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        found: set[str] = set()
        for key in a.keys() | b.keys():
            found |= _differences(a.get(key), b.get(key), f"{prefix}{key}.")
        return found
    return set() if a == b else {prefix.removesuffix(".")}
