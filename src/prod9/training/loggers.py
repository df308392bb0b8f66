"""Logged values: a CSV file in the run folder, and at most one service."""

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from prod9.config import Stage1Config, Stage2Config, TrainerConfig
from prod9.errors import Prod9Error
from prod9.files import append_whole, atomic_write
from prod9.runtime.processes import is_main
from prod9.training.run_folder import RunFolder, keep_history


class HistoryLogger(Logger):
    """Write logged values to ``folder/metrics.csv``, one row per call, at once; columns by name.

    For a new column the whole file is written anew and renamed, so that it has all rows at any
    moment. A file of an earlier session is renamed first. Only the main process writes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_metrics(
        self, metrics: Mapping[str, Tensor | float | int], step: int | None = None
    ) -> None:
        """Write a row.

        Raises:
            Prod9Error: the file cannot be written, as on a full disk; earlier rows stay.
        """
        if not is_main():
            return
        row: dict[str, Any] = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in metrics.items()
        }
        row["step"] = step
        if not self._columns:
            keep_history(self.path.parent)
        if row.keys() <= set(self._columns) and self.path.exists():
            append_whole(self.path, _text(self._columns, [row]))
        else:
            columns = sorted(row.keys() | set(self._columns))
            self._rewrite(columns, row)
            self._columns = columns

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
    # Not by an import, which would also find a folder of runs called "wandb".
    if not any(metadata.distributions(name=each) for each in (name, f"{name}-skinny")):
        raise Prod9Error(
            f"trainer.logger={name} needs the package {name}: install it with "
            f"`pip install {name}`, or set trainer.logger=tensorboard."
        )


def build_loggers(
    config: Stage1Config | Stage2Config, folder: RunFolder, steps: int
) -> list[Logger]:
    """Return the logger of ``trainer.logger`` and the run folder's CSV.

    A run of wandb or MLflow has the folder's name, in the project prod9 (or ``WANDB_PROJECT``,
    ``MLFLOW_EXPERIMENT_NAME``). MLflow writes to ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` and
    ``mlflow_files`` of the run folder. A resumed run is a new run of the same name; TensorBoard
    drops what it has of steps after ``steps``, which are repeated.
    """
    found: list[Logger] = [HistoryLogger(folder.history)]
    root = folder.root.resolve()
    match config.trainer.logger:
        case "csv":
            return found
        case "tensorboard":
            logger = TensorBoardLogger(folder.tensorboard, name="", version="", purge_step=steps)
        case "wandb":
            project = os.environ.get("WANDB_PROJECT") or "prod9"
            logger = Wandb(name=root.name, project=project, save_dir=root)
        case "mlflow":
            uri = os.environ.get("MLFLOW_TRACKING_URI")
            logger = MLflow(
                experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or "prod9",
                run_name=root.name,
                tracking_uri=uri or f"sqlite:///{root / 'mlflow.db'}",
                artifact_location=None if uri else (root / "mlflow_files").as_uri(),
            )
            logger.uri = uri
    if is_main() and not isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(config.model_dump(mode="json"))
    return [logger, *found]


class Wandb(WandbLogger):
    """A run that ends with the training: else the next one of this process would continue it."""

    def finalize(self, status: str) -> None:
        """End the run."""
        import wandb  # pyright: ignore[reportMissingImports]

        super().finalize(status)
        wandb.finish(exit_code=int(status != "success"))


class MLflow(MLFlowLogger):
    """A run whose address is not that of the next training of this process."""

    uri: str | None = None

    def finalize(self, status: str = "success") -> None:
        """End the run, and restore the address that MLflow has put into the environment."""
        import mlflow  # pyright: ignore[reportMissingImports]

        super().finalize(status)
        mlflow.set_tracking_uri(self.uri)
