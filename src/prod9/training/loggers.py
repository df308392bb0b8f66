"""Logged values: a CSV file in the run folder, and at most one service."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from prod9.config import Stage1Config, Stage2Config, TrainerConfig
from prod9.errors import Prod9Error
from prod9.files import append_whole, atomic_write
from prod9.runtime.processes import is_main
from prod9.training.run_folder import RunFolder, keep_history

_PROJECT = "prod9"


class HistoryLogger(Logger):
    """Write logged values to ``metrics.csv``, one row per call, at once; columns by name.

    For a new column the whole file is written under a temporary name and renamed, so that it holds
    all rows at any moment. A file of an earlier session is renamed first
    (:func:`prod9.training.run_folder.keep_history`). Only the main process writes.

    Args:
        folder: made when there is something to write.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []
        self._rows = 0

    @property
    def name(self) -> str:
        """Empty: a folder belongs to one run."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as :attr:`name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder."""
        return str(self.path.parent)

    def log_metrics(
        self, metrics: Mapping[str, Tensor | float | int], step: int | None = None
    ) -> None:
        """Write a row; ``step`` is by default the number of rows so far.

        Raises:
            Prod9Error: the file cannot be written, as on a full disk; earlier rows stay.
        """
        if not is_main():
            return
        row: dict[str, Any] = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in metrics.items()
        }
        row["step"] = self._rows if step is None else step
        if not self._columns:
            keep_history(self.path.parent)
        if row.keys() <= set(self._columns) and self.path.exists():
            append_whole(self.path, _text(self._columns, [row]))
        else:
            columns = sorted(row.keys() | set(self._columns))
            self._rewrite(columns, row)
            self._columns = columns
        self._rows += 1

    def _rewrite(self, columns: Sequence[str], row: Mapping[str, Any]) -> None:
        before: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                before = list(csv.DictReader(file))
        header = dict(zip(columns, columns, strict=True))
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(_text(columns, [header, *before, row]))

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Do nothing: the run folder has the configuration."""


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()


def require_logger(config: TrainerConfig) -> None:
    """Check that the package of ``trainer.logger`` is installed.

    Raises:
        Prod9Error: it is not.
    """
    name = config.logger
    if name in ("tensorboard", "csv"):  # dependencies of prod9
        return
    # mlflow-skinny can reach a server, but has no database of its own.
    light = ["mlflow-skinny"] if name == "mlflow" and _tracking_uri() else []
    if not any(map(_installed, [name, *light])):
        raise Prod9Error(
            f"trainer.logger={name} needs the package {name}: install it with "
            f"`pip install {name}`, or set trainer.logger=tensorboard."
        )


def _installed(package: str) -> bool:
    # Not by an import, which would also find a folder of runs called "wandb".
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _tracking_uri() -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def build_loggers(config: TrainerConfig, folder: RunFolder) -> list[Logger]:
    """Return the logger of ``trainer.logger`` and the run folder's CSV.

    A run of wandb or MLflow has the folder's name, in the project prod9 (or ``WANDB_PROJECT``,
    ``MLFLOW_EXPERIMENT_NAME``). MLflow writes to ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` and
    ``mlflow_files`` of the run folder. A resumed run is a new run of the same name.
    """
    history = HistoryLogger(folder.history)
    root = folder.root.resolve()
    match config.logger:
        case "csv":
            return [history]
        case "tensorboard":
            # TensorBoard drops the values of steps that a resumed run repeats. Main writes them.
            resumed = is_main() and folder.can_resume()
            done = folder.resume_point().position.steps if resumed else 0
            return [
                TensorBoardLogger(folder.tensorboard, name="", version="", purge_step=done),
                history,
            ]
        case "wandb":
            project = os.environ.get("WANDB_PROJECT") or _PROJECT
            return [WandbLogger(name=root.name, project=project, save_dir=root), history]
        case "mlflow":
            uri = _tracking_uri()
            logger = MLFlowLogger(
                experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT,
                run_name=root.name,
                tracking_uri=uri or f"sqlite:///{root / 'mlflow.db'}",
                artifact_location=None if uri else (root / "mlflow_files").as_uri(),
            )
            return [logger, history]


class ServiceRun(Callback):
    """Log the configuration to wandb or MLflow, and end their run with the training."""

    def __init__(self, config: Stage1Config | Stage2Config) -> None:
        self.settings: dict[str, Any] = config.model_dump(mode="json")
        self.uri = _tracking_uri()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the configuration."""
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger | MLFlowLogger):
                logger.log_hyperparams(self.settings)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End the run."""
        self._end(trainer, 0)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End the run as failed."""
        self._end(trainer, 1)

    def _end(self, trainer: pl.Trainer, code: int) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                import wandb  # pyright: ignore[reportMissingImports]

                wandb.finish(exit_code=code)  # else the next training of this process continues it
            elif isinstance(logger, MLFlowLogger):
                import mlflow  # pyright: ignore[reportMissingImports]

                # MLflow has put its address into the environment of the next training.
                mlflow.set_tracking_uri(self.uri)
