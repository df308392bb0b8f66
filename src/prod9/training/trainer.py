"""Lightning's Trainer from the configuration, and the run of either stage with it."""

import importlib.util
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from torch import nn
from torch.utils.data import DataLoader

from prod9.config import Stage1Config, Stage2Config, TrainerConfig
from prod9.data.batches import set_epoch
from prod9.data.dataset import Dataset
from prod9.errors import Prod9Error
from prod9.networks.activation_checkpointing import recompute_activations
from prod9.networks.autoencoder import Autoencoder
from prod9.networks.transformer import MaskedTransformer
from prod9.runtime.console import say
from prod9.runtime.device import lightning_accelerator, resolve_device, resolve_precision
from prod9.runtime.distributed import is_main, of_main, world_size
from prod9.torch_files import read_plain
from prod9.training.checkpoint_files import Position
from prod9.training.display.forecast import ForecastLine
from prod9.training.display.previews import Preview, Previews
from prod9.training.display.progress import TrainingProgress
from prod9.training.last_checkpoint import LastCheckpoint, WholeCheckpoints
from prod9.training.loggers import build_loggers, require_logger
from prod9.training.processes import join, on_this_machine
from prod9.training.run_folder import RunFolder
from prod9.training.stage_module import StageModule
from prod9.training.strategies import build_strategy, require_strategy


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


def begin(config: Stage1Config | Stage2Config, *, resume: bool, overwrite: bool) -> RunFolder:
    """Connect the processes and check all that can be wrong without the data.

    Reading the data may take hours.

    Raises:
        Prod9Error: a mistake in the configuration or the output folder.
    """
    join(config.trainer)
    require_strategy(config)
    folder = RunFolder(config.output_dir)
    if is_main():
        folder.check(config, resume=resume, overwrite=overwrite)
    resolve_precision(config.trainer.precision, config.trainer.accelerator)
    compile_mode(config.trainer)
    require_logger(config.trainer)
    return folder


@dataclass(frozen=True)
class TrainingData:
    """Batches of the training and the validation split."""

    train: DataLoader[Any]
    val: DataLoader[Any]
    data: Dataset
    """The training split."""
    summary: str


def build_trainer(
    config: Stage1Config | Stage2Config,
    folder: RunFolder,
    callbacks: Sequence[Callback],
    steps: int = 0,
) -> pl.Trainer:
    """Return Lightning's Trainer; a resumed run has taken so many ``steps``."""
    quieten_lightning()
    settings = config.trainer
    here = on_this_machine()
    environment = LightningEnvironment() if world_size() == 1 else TorchElasticEnvironment()
    return pl.Trainer(
        accelerator=lightning_accelerator(settings.accelerator),
        devices=here,
        num_nodes=world_size() // here,
        strategy=build_strategy(config),
        precision=cast(Any, resolve_precision(settings.precision, settings.accelerator)),
        max_epochs=settings.max_epochs,
        limit_train_batches=settings.limit_train_batches,
        limit_val_batches=settings.limit_val_batches,
        check_val_every_n_epoch=settings.check_val_every_n_epoch,
        log_every_n_steps=settings.log_every_n_steps,
        logger=build_loggers(config, folder, steps),
        callbacks=[*callbacks],
        plugins=[WholeCheckpoints(), environment],
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(each, Checkpoint) for each in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the loaders share out their items (data/batches.py)
    )


def run_training(
    config: Stage1Config | Stage2Config,
    folder: RunFolder,
    module: StageModule[Any],
    data: TrainingData,
    preview: Callable[[int], Preview] | None,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Train a stage's module; ``preview`` draws so many volumes.

    Raises:
        Prod9Error: as :meth:`RunFolder.claim`.
        Stopped: at a signal, with everything saved.
    """
    saved = folder.claim(config, resume=resume, overwrite=overwrite) if is_main() else None
    path, position = of_main((str(saved.path), saved.position) if saved else (None, Position()))
    del saved  # it holds the whole checkpoint
    millions = sum(p.numel() for p in module.ema.parameters()) / 1e6
    say(f"{module.title}: {config.data.dataset_name}, {data.summary}; {millions:.1f} M parameters")
    say(f"run folder: {folder.root}")
    last = LastCheckpoint(folder.checkpoints, config)
    callbacks: list[Callback] = [last]
    keep_best, best = config.callbacks.checkpoint.keep_best, None
    if keep_best and config.trainer.limit_val_batches != 0:
        best = ModelCheckpoint(
            dirpath=folder.checkpoints,
            filename="best-{epoch}",
            monitor=module.monitor,
            mode=module.mode,
            save_top_k=keep_best,
            enable_version_counter=False,
        )
        callbacks.insert(0, best)  # before the last checkpoint, which records which they are
    if is_main():
        callbacks += [ForecastLine(data.val), TrainingProgress(module.title)]
    pictures = config.callbacks.preview
    if preview is not None and pictures.every_n_steps:
        drawn = preview(pictures.num_volumes)
        callbacks.append(Previews(folder.previews, pictures.every_n_steps, drawn))
    trainer = build_trainer(config, folder, callbacks, position.steps)
    if path is not None:
        start_where_it_ended(position, config, data.train)
    # Lightning's own SIGTERM handler calls collectives in the middle of whatever runs, and no
    # public setting switches it off.
    cast(Any, trainer)._signal_connector.register_signal_handlers = lambda: None
    with last.signals.listening():
        trainer.fit(module, data.train, data.val, ckpt_path=path, weights_only=True)
    if best is not None and config.callbacks.checkpoint.export == "best":
        _load_best(module, best)


def _load_best(module: StageModule[Any], best: ModelCheckpoint) -> None:
    """Give the averaged network the weights of the best validation."""
    content: Any = read_plain(Path(best.best_model_path), "train again with --overwrite")
    prefix = "ema."
    weights = {
        name.removeprefix(prefix): value
        for name, value in content["state_dict"].items()
        if name.startswith(prefix)
    }
    module.ema.load_state_dict(weights)
    say(f"{module.title}: best {module.monitor} {best.best_model_score:.4g}, exported from there")


def start_where_it_ended(
    position: Position, config: Stage1Config | Stage2Config, loader: DataLoader[Any]
) -> None:
    """Let ``loader`` start at the first batch that the checkpoint has not seen.

    The order of an epoch is the same for every batch size and number of processes. With others
    than before, the first batch is the one with the first unseen item.
    """
    items = config.data.batch_size * world_size()
    batch = position.batches_of(items)
    set_epoch(loader, position.epochs, batch)  # workers fetch before Lightning sets the epoch
    if position.batches and position.batch_items != items:
        twice = position.batches * position.batch_items - batch * items
        say(
            f"epoch {position.epochs + 1} was begun with {position.batch_items} items per step and "
            f"goes on with {items}, at batch {batch + 1}; {twice} of its items are seen again"
        )


def limited(total: int, limit: int | float | None, batch_size: int) -> int:
    """Return how many of ``total`` volumes ``limit_val_batches`` leaves; all for None and 0."""
    if not limit:  # 0 switches off validation while training, but not the command `validate`
        return total
    count = limit * batch_size if isinstance(limit, int) else round(limit * total)
    return max(1, min(total, int(count)))
