"""Lightning's Trainer from the configuration, and the run of either stage with it."""

import importlib.util
import logging
import os
import shutil
import warnings
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from prod9.config import Stage1Config, Stage2Config, TrainerConfig
from prod9.data.batches import set_epoch
from prod9.errors import Prod9Error
from prod9.networks.activation_checkpointing import recompute_activations
from prod9.networks.autoencoder import Autoencoder
from prod9.networks.transformer import MaskedTransformer
from prod9.runtime.console import say
from prod9.runtime.distributed import is_main, of_main, world_size
from prod9.training import processes
from prod9.training.last_checkpoint import LastCheckpoint, StampConfig, WholeCheckpoints
from prod9.training.loggers import ServiceRun, build_loggers, require_logger
from prod9.training.previews import Preview, Previews
from prod9.training.progress import TrainingProgress
from prod9.training.resume_position import ResumePosition
from prod9.training.run_folder import ResumePoint, RunFolder
from prod9.training.strategies import build_strategy, environment

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def resolve_device(accelerator: str, asked: str = "trainer.accelerator=") -> torch.device:
    """Return the device for work outside of Lightning (encoding, generation).

    Args:
        accelerator: ``auto``, ``gpu`` or ``cpu``.
        asked: the option or key with which the user chooses it, for the message.

    Raises:
        Prod9Error: there is no such device.
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
    """Check device, precision, compiler and logger before data is read, which may take hours.

    Raises:
        Prod9Error: one of them is not available.
    """
    resolve_precision(config)
    compile_mode(config)
    require_logger(config)


def resolve_precision(config: TrainerConfig) -> str:
    """Return Lightning's name of the precision.

    ``auto`` is bf16 on a GPU that computes in it, else fp32: on a CPU without bf16 units, bf16
    convolutions take a hundred times as long as fp32.

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
        Prod9Error: ``trainer.compile`` needs Triton (GPU) or a C++ compiler (CPU).
    """
    on_gpu = resolve_device(config.accelerator).type == "cuda"
    triton = importlib.util.find_spec("triton") is not None
    if config.compile == "auto":
        return "default" if on_gpu and triton else None
    if config.compile == "off":
        return None
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if triton if on_gpu else any(name and shutil.which(name) for name in compilers):
        return config.compile
    needed = "the package triton on a GPU" if on_gpu else "a C++ compiler on a CPU"
    raise Prod9Error(
        f"trainer.compile={config.compile} needs {needed}; install it or set trainer.compile=off."
    )


def hot_paths(network: Autoencoder | MaskedTransformer) -> list[nn.Module]:
    """Return the parts of ``network`` to be compiled, each without a graph break.

    Of the autoencoder all but quantiser and last layer: the adaptive weight is measured there, and
    a compiled graph cannot be differentiated in part. Of the transformer its blocks, which are
    alike, so that one compilation serves all.
    """
    if isinstance(network, Autoencoder):
        return [network.encoder, network.decoder]
    return [*network.blocks]


def prepare_training(network: Autoencoder | MaskedTransformer, config: TrainerConfig) -> None:
    """Apply ``trainer.compile`` and ``trainer.activation_checkpointing`` to a network."""
    if config.activation_checkpointing:
        recompute_activations(network)
    mode = compile_mode(config)
    if mode is not None:
        for part in hot_paths(network):
            part.compile(mode=mode)


def quieten_lightning() -> None:
    """Silence Lightning's log messages and warnings."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)


def build_trainer(
    config: Stage1Config | Stage2Config,
    folder: RunFolder,
    *,
    monitor: str,
    mode: Literal["min", "max"],
    callbacks: list[Callback],
) -> pl.Trainer:
    """Return a Trainer that writes logs, the last checkpoint and the best ones by ``monitor``."""
    quieten_lightning()
    settings = config.trainer
    checkpoint = config.callbacks.checkpoint
    position = ResumePosition(config.seed, config.data.batch_size)
    best: list[Callback] = []
    if checkpoint.keep_best and settings.limit_val_batches != 0:
        best.append(
            ModelCheckpoint(
                dirpath=folder.checkpoints,
                filename="best-{epoch}",
                monitor=monitor,
                mode=mode,
                save_top_k=checkpoint.keep_best,
                enable_version_counter=False,
            )
        )
    own = [
        position,
        *best,  # before the last checkpoint, which records which they are
        LastCheckpoint(folder.checkpoints, checkpoint, position),
        StampConfig(config),
        ServiceRun(config),
    ]
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
        callbacks=[*own, *callbacks],
        plugins=[WholeCheckpoints(), environment()],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the loaders share out their items (data/batches.py)
    )


def run_training(
    config: Stage1Config | Stage2Config,
    folder: RunFolder,
    module: pl.LightningModule,
    train: DataLoader[Any],
    val: DataLoader[Any] | None,
    *,
    title: str,
    monitor: str,
    mode: Literal["min", "max"],
    preview: Preview | None,
    resume: bool,
) -> pl.Trainer:
    """Train a stage's module; return the trainer.

    Args:
        config: of the stage.
        folder: of the run.
        module: of the stage.
        train: batches to learn from.
        val: batches to validate on.
        title: first words of the progress lines.
        monitor: metric by which the best checkpoints are chosen.
        mode: whether the least or the greatest value is the best.
        preview: draws a picture; None for no pictures.
        resume: continue from the last checkpoint.

    Raises:
        Prod9Error: there is no readable checkpoint to resume from.
        Stopped: at a signal, with everything saved.
    """
    at_once = config.data.batch_size * world_size()
    callbacks: list[Callback] = [TrainingProgress(title, at_once)] if is_main() else []
    if preview is not None:
        every = config.callbacks.preview.every_n_steps
        callbacks.append(Previews(folder.previews, every, preview))
    trainer = build_trainer(config, folder, monitor=monitor, mode=mode, callbacks=callbacks)
    path = None
    if resume:
        point = start_where_it_ended(folder, config, train)
        path = str(point.path)
    lightning = cast(Any, trainer)
    (last,) = (each for each in lightning.callbacks if isinstance(each, LastCheckpoint))
    # Lightning's own SIGTERM handler calls collectives in the middle of whatever runs, and no
    # public setting switches it off.
    lightning._signal_connector.register_signal_handlers = lambda: None
    with last.signals.listening():
        trainer.fit(module, train, val, ckpt_path=path, weights_only=True)
    return trainer


def start_where_it_ended(
    folder: RunFolder, config: Stage1Config | Stage2Config, loader: DataLoader[Any]
) -> ResumePoint:
    """Let ``loader`` start at the first batch that the checkpoint has not seen.

    The order of an epoch is the same for every batch size and number of processes. With others
    than before, the first batch is the one with the first unseen item.

    Raises:
        Prod9Error: there is no readable checkpoint.
    """
    # Only one process of a run reads the whole checkpoint for this.
    point = of_main(folder.resume_point() if is_main() else None)
    assert point is not None
    position, items = point.position, config.data.batch_size * world_size()
    batch = position.batches_of(items)
    set_epoch(loader, position.epochs, batch)  # workers fetch before Lightning sets the epoch
    if position.batches and position.batch_items != items:
        twice = position.batches * position.batch_items - batch * items
        say(
            f"epoch {position.epochs + 1} was begun with {position.batch_items} items per step and "
            f"goes on with {items}, at batch {batch + 1}; {twice} of its items are seen again"
        )
    return point


def limited(total: int, limit: int | float | None, batch_size: int) -> int:
    """Return how many of ``total`` volumes ``limit_val_batches`` leaves; all for None and 0."""
    if not limit:  # 0 switches off validation while training, but not the command `validate`
        return total
    count = limit * batch_size if isinstance(limit, int) else round(limit * total)
    return max(1, min(total, int(count)))
