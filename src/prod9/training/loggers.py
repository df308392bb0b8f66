"""Where logged values go: the run folder's CSV always, and one service of choice beside it."""

import netrc
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from prod9.config import Stage1Config, Stage2Config, TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime.distributed import is_main
from prod9.training.history import HistoryLogger
from prod9.training.run_folder import RunFolder

_PROJECT = "prod9"


def require_logger(config: TrainerConfig) -> None:
    """Refuse a logger that would fail, or ask for a login, once training has begun.

    Raises:
        Prod9Error: its package is not installed, or wandb has no API key and is not offline.
    """
    name = config.logger
    if name in ("tensorboard", "csv"):  # prod9 depends on what they need
        return
    # mlflow-skinny has no database of its own: enough for a server, not for a file.
    enough = ["mlflow-skinny"] if name == "mlflow" and _tracking_uri() else []
    if not any(map(_installed, [name, *enough])):
        raise Prod9Error(
            f"trainer.logger={name} needs the package {name}: install it with "
            f"`pip install {name}`, or set trainer.logger=tensorboard."
        )
    if name == "wandb" and not _wandb_can_start():
        raise Prod9Error(
            "trainer.logger=wandb finds no API key: run `wandb login`, or set WANDB_API_KEY, or "
            "set WANDB_MODE=offline to keep the values in the run folder."
        )


def build_loggers(config: TrainerConfig, folder: RunFolder) -> list[Logger]:
    """Return the logger of ``trainer.logger`` and the run folder's CSV.

    wandb's run is called as the folder, in the project prod9 (or ``WANDB_PROJECT``); MLflow's too,
    at ``MLFLOW_TRACKING_URI`` or in ``mlflow.db`` of the run folder, with its files in
    ``mlflow_files``. A resumed run is a new run there, of the same name.
    """
    history = HistoryLogger(folder.history)
    root = folder.root.resolve()
    match config.logger:
        case "csv":
            return [history]
        case "tensorboard":
            # What a resumed run does again, TensorBoard is to forget. Who writes it decides.
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
            # MLflow has given up its store of plain files: a fresh one is refused.
            logger = MLFlowLogger(
                experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT,
                run_name=root.name,
                tracking_uri=uri or f"sqlite:///{root / 'mlflow.db'}",
                artifact_location=None if uri else (root / "mlflow_files").as_uri(),
            )
            return [logger, history]


class ServiceRun(Callback):
    """Give the configuration to wandb or MLflow, and leave nothing of the run to the next one."""

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
                import wandb  # pyright: ignore[reportMissingImports]  # only where it is asked for

                wandb.finish(exit_code=code)  # else the next training of this process goes on in it
            elif isinstance(logger, MLFlowLogger):
                import mlflow  # pyright: ignore[reportMissingImports]

                # Using a store has put it into the environment, where the next training would
                # find it.
                mlflow.set_tracking_uri(self.uri)


def _tracking_uri() -> str | None:
    # Read when it is needed: Lightning's own default was read when it was imported.
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def _installed(package: str) -> bool:
    # Not by importing it: a run's folder called "wandb" can be imported too.
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _wandb_can_start() -> bool:
    """Whether wandb would start without asking for a key; says nothing about the key's worth."""
    import wandb  # pyright: ignore[reportMissingImports]

    settings = wandb.setup().settings  # the environment, and what `wandb offline` has left
    if settings.mode not in ("online", "shared", None):
        return True
    token = os.environ.get("WANDB_IDENTITY_TOKEN_FILE")
    hosts = {urlsplit(str(settings.base_url)).netloc, "api.wandb.ai"}
    return bool(os.environ.get("WANDB_API_KEY") or settings.api_key or token) or _in_netrc(hosts)


def _in_netrc(hosts: set[str]) -> bool:
    """Whether the file that ``wandb login`` writes has a key for one of ``hosts``."""
    own = os.environ.get("NETRC")
    for path in [Path(own)] if own else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            known = netrc.netrc(path).hosts
        except (OSError, netrc.NetrcParseError):
            continue
        if hosts & known.keys():
            return True
    return False
