"""Lightning's Trainer, from the configuration."""

import importlib.util
import logging
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch.utils.data import DataLoader

from prod9.config import Stage1Config, Stage2Config, TrainerConfig
from prod9.config.load import dump
from prod9.errors import Prod9Error
from prod9.torch_files import write_plain
from prod9.training import processes
from prod9.training.checkpoint_files import LAST, write_last
from prod9.training.last_checkpoint import LastCheckpoint
from prod9.training.loggers import ServiceRun, build_loggers, require_logger
from prod9.training.resume_position import Continuation
from prod9.training.run_folder import CONFIG_KEY, ResumePoint, RunFolder
from prod9.training.strategies import build_strategy, environment

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def resolve_device(accelerator: str, asked: str = "trainer.accelerator=") -> torch.device:
    """Return the device for work outside Lightning (encoding, generating).

    Args:
        accelerator: ``auto``, ``gpu`` or ``cpu``.
        asked: where the user says so, for the message.

    Raises:
        Prod9Error: the device asked for is not there.
    """
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "cpu"):
        return torch.device("cpu")
    raise Prod9Error(
        f"{asked}{accelerator}, but this machine has none that PyTorch can use; set {asked}auto, "
        "and see `prod9 doctor`."
    )


def lightning_accelerator(accelerator: str) -> str:
    """Return Lightning's name of the device that :func:`resolve_device` chooses.

    Its own ``auto`` would take an Apple GPU, which has no fp64 for the metrics.
    """
    return "gpu" if resolve_device(accelerator).type == "cuda" else "cpu"


def require_runnable(config: TrainerConfig) -> None:
    """Refuse devices, precisions, compilers and loggers that are not there, before a long start.

    Raises:
        Prod9Error: no GPU, a precision that the device lacks, no compiler where one is needed, or
            a logger that cannot start.
    """
    resolve_device(config.accelerator)
    resolve_precision(config)
    compile_mode(config)
    require_logger(config)


def resolve_precision(config: TrainerConfig) -> str:
    """Return Lightning's name of the precision.

    ``auto`` is bf16 on a GPU that computes in it, else fp32: a CPU without bf16 units runs bf16
    convolutions a hundred times slower than fp32.

    Raises:
        Prod9Error: fp16 without a GPU (it needs loss scaling, which has no CPU kernels).
    """
    device = resolve_device(config.accelerator)
    if config.precision == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return _PRECISION["bf16" if fast else "fp32"]
    if config.precision == "fp16" and device.type == "cpu":
        raise Prod9Error(
            "trainer.precision=fp16 needs a GPU; use trainer.precision=auto (fp32 on a CPU)."
        )
    return _PRECISION[config.precision]


def compile_mode(config: TrainerConfig) -> str | None:
    """Return the mode of ``torch.compile``, or None where nothing is compiled.

    Raises:
        Prod9Error: compilation is asked for, and what it needs is not there.
    """
    on_gpu = resolve_device(config.accelerator).type == "cuda"
    triton = importlib.util.find_spec("triton") is not None
    if config.compile == "auto":
        return "default" if on_gpu and triton else None
    if config.compile == "off":
        return None
    if on_gpu and not triton:
        raise Prod9Error(
            f"trainer.compile={config.compile} needs the package triton on a GPU; install it or "
            "set trainer.compile=off."
        )
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not on_gpu and not any(name and shutil.which(name) for name in compilers):
        raise Prod9Error(
            f"trainer.compile={config.compile} needs a C++ compiler on a CPU; install g++ or set "
            "trainer.compile=off."
        )
    return config.compile


def quieten_lightning() -> None:
    """Silence Lightning's advice; what matters to a user prod9 says itself."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)


class WholeCheckpoints(TorchCheckpointIO):
    """Write checkpoints whole or not at all, and keep the one before the last."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write beside ``path``, then rename."""
        target = Path(path)
        if target.name == LAST:
            write_last(target, checkpoint)
        else:
            write_plain(target, checkpoint)


class StampConfig(Callback):
    """Put the resolved configuration into every checkpoint."""

    def __init__(self, config: Stage1Config | Stage2Config) -> None:
        self.text = dump(config)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add it."""
        checkpoint[CONFIG_KEY] = self.text


def build_trainer(
    config: Stage1Config | Stage2Config,
    folder: RunFolder,
    *,
    monitor: str,
    mode: Literal["min", "max"],
    callbacks: list[Callback],
) -> pl.Trainer:
    """Return a Trainer that logs where it should, and keeps the last and the best."""
    quieten_lightning()
    settings = config.trainer
    checkpoint = config.callbacks.checkpoint
    validates = settings.limit_val_batches != 0
    continuation = Continuation(config.seed, config.data.batch_size)
    keepers: list[Callback] = []
    if checkpoint.keep_best and validates:
        keepers.append(
            ModelCheckpoint(
                dirpath=folder.checkpoints,
                filename="best-{epoch}",
                monitor=monitor,
                mode=mode,
                save_top_k=checkpoint.keep_best,
                enable_version_counter=False,
            )
        )
    # After the best: the last knows which they are.
    keepers.append(LastCheckpoint(folder.checkpoints, checkpoint, continuation))
    return pl.Trainer(
        accelerator=lightning_accelerator(settings.accelerator),
        devices=processes.on_this_machine(),
        num_nodes=processes.machines(),
        strategy=build_strategy(config),
        precision=cast(Any, resolve_precision(settings)),
        max_epochs=settings.max_epochs,
        limit_train_batches=settings.limit_train_batches,
        limit_val_batches=settings.limit_val_batches,
        check_val_every_n_epoch=settings.check_val_every_n_epoch,
        log_every_n_steps=settings.log_every_n_steps,
        logger=build_loggers(settings, folder),
        callbacks=[continuation, *keepers, StampConfig(config), ServiceRun(config), *callbacks],
        plugins=[WholeCheckpoints(), environment()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        # The loaders share out their items themselves (data/batches.py).
        use_distributed_sampler=False,
    )


def fit_module(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    train: DataLoader[Any],
    val: DataLoader[Any] | None,
    point: ResumePoint | None,
) -> None:
    """Train, from ``point`` where there is one; signals are noted from here on until it is over.

    Raises:
        Stopped: at a signal, with everything saved.
    """
    lightning = cast(Any, trainer)
    (keeper,) = (each for each in lightning.callbacks if isinstance(each, LastCheckpoint))
    # Lightning's answer to SIGTERM asks the other processes from within a signal handler, in the
    # middle of whatever they are doing. Public settings do not switch it off.
    lightning._signal_connector.register_signal_handlers = lambda: None
    with keeper.signals.listening():
        path = None if point is None else str(point.path)
        trainer.fit(module, train, val, ckpt_path=path, weights_only=True)


def limited(total: int, limit: int | float | None, batch_size: int) -> int:
    """Return how many of ``total`` volumes ``limit_val_batches`` leaves; all for None and 0."""
    if not limit:  # 0 switches off validation while training, not a measurement that is asked for
        return total
    count = limit * batch_size if isinstance(limit, int) else round(limit * total)
    return max(1, min(total, int(count)))
