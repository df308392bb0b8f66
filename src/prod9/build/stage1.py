"""Stage 1 from its configuration: data, networks, losses, run, export."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, TypeVar

import matplotlib.figure
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from prod9.build.announce import say
from prod9.build.run_folder import RunFolder
from prod9.build.trainer import build_trainer, resolve_device
from prod9.config import MedMNISTDataConfig, MedMNISTSourceConfig, Stage1Config
from prod9.config.load import dump
from prod9.config.loss import FocalFrequencyLossConfig, PerceptualLossConfig
from prod9.data import medmnist
from prod9.data.batches import set_epoch
from prod9.data.brain_regions import SPACING_MM
from prod9.data.download import fetch
from prod9.data.volumes import VolumeSet, loader
from prod9.errors import UserError
from prod9.evaluate.provenance import provenance, write_json
from prod9.evaluate.reconstruction import evaluate_reconstruction
from prod9.files import require_writable
from prod9.losses.focal_frequency import FocalFrequencyLoss
from prod9.losses.medicalnet import load_weights
from prod9.losses.perceptual import MedicalNetPerceptualLoss
from prod9.losses.weights import (
    MEDICALNET_SHA256,
    MEDICALNET_URL,
    cache_dir,
    find_medicalnet,
    medicalnet_cache_path,
    missing_weights_message,
)
from prod9.models.discriminator import MultiScaleDiscriminator
from prod9.montage import montage
from prod9.tokenizer import CHANNELS, Tokenizer, TokenizerSpec, build_autoencoder
from prod9.training.previews import Previews
from prod9.training.progress import TrainingProgress
from prod9.training.stage1 import Stage1Module

SourceT = TypeVar("SourceT", bound=MedMNISTSourceConfig)


def require_medmnist(data: object, kind: type[SourceT]) -> SourceT:
    """Return the ``data`` section if it is MedMNIST's.

    Raises:
        UserError: it is BraTS, whose reader is not part of this version.

    """
    if isinstance(data, kind):
        return data
    raise UserError(
        "data.dataset_name=brats: this version of prod9 validates the BraTS configurations but "
        "cannot read BraTS folders yet; use one of the MedMNIST 3D data sets."
    )


def fetch_medicalnet(config: PerceptualLossConfig) -> Path:
    """Find MedicalNet's weights: at ``weights_path``, then in the cache, then on the network.

    Raises:
        UserError: nowhere; one sentence with the three ways out.

    """
    found = find_medicalnet(config.weights_path, cache_dir())
    if found is not None:
        return found
    target = medicalnet_cache_path(cache_dir())
    if not config.download:
        raise UserError(missing_weights_message(target, "loss.perceptual.download is false"))
    try:
        return fetch(
            MEDICALNET_URL,
            target,
            digest=f"sha256:{MEDICALNET_SHA256}",
            allowed=True,
            what="MedicalNet ResNet-10 weights",
            hint="",
        )
    except UserError as error:
        raise UserError(missing_weights_message(target, str(error).rstrip("."))) from error


def build_focal_frequency(config: FocalFrequencyLossConfig) -> FocalFrequencyLoss:
    """Return the focal frequency loss (unweighted: the module applies the weight)."""
    return FocalFrequencyLoss(
        alpha=config.alpha,
        patch_factor=config.patch_factor,
        axes=config.axes,
        ratio=config.ratio,
        ave_spectrum=config.ave_spectrum,
        log_matrix=config.log_matrix,
        batch_matrix=config.batch_matrix,
    )


def build_feature_loss(config: Stage1Config) -> nn.Module:
    """Return the loss of ``loss.loss_type``; says which weights a perceptual loss uses."""
    if config.loss.loss_type == "ffl":
        return build_focal_frequency(config.loss.focal_frequency)
    path = fetch_medicalnet(config.loss.perceptual)
    say(f"perceptual loss: {config.loss.perceptual.network_type}, weights {path}")
    return MedicalNetPerceptualLoss(load_weights(path))


def build_module(config: Stage1Config) -> Stage1Module:
    """Return the training module with untrained networks."""
    discriminator = None
    if config.loss.adversarial.weight > 0:
        sizes = config.model.discriminator
        discriminator = MultiScaleDiscriminator(
            CHANNELS,
            sizes.channels,
            sizes.num_layers_d,
            sizes.num_d,
        )
    return Stage1Module(
        config,
        build_autoencoder(config.model.autoencoder),
        build_feature_loss(config),
        discriminator,
    )


def tokenizer_of(module: Stage1Module, class_names: tuple[str, ...]) -> Tokenizer:
    """Freeze the averaged weights of a module as a tokenizer."""
    config = module.config
    data = require_medmnist(config.data, MedMNISTDataConfig)
    side = data.size
    # MedMNIST's cubes were resampled without a record of their spacing: 1 mm stands for "unknown".
    spacing = SPACING_MM[side] if data.dataset_name == "brainregionmnist3d" else 1.0
    spec = TokenizerSpec(
        autoencoder=config.model.autoencoder,
        dataset_name=data.dataset_name,
        volume_shape=(side, side, side),
        spacing_mm=(spacing, spacing, spacing),
        class_names=class_names,
        config_yaml=dump(config),
    )
    autoencoder = build_autoencoder(config.model.autoencoder)
    autoencoder.load_state_dict(module.ema.network.state_dict())
    return Tokenizer(spec, autoencoder)


def _preview(
    module: Stage1Module, volumes: VolumeSet, count: int
) -> Callable[[int], matplotlib.figure.Figure]:
    """Rows of validation volumes above their reconstructions, always the same ones."""
    chosen = np.linspace(0, len(volumes) - 1, min(count, len(volumes))).round().astype(int)
    real = torch.from_numpy(volumes.images[chosen]).float()[:, None] / 255
    columns = [volumes.class_names[label] for label in volumes.labels[chosen]]

    @torch.no_grad()
    def draw(batches: int) -> matplotlib.figure.Figure:
        output = module.ema.network(real.to(module.device)).volume.float().clamp(0, 1)
        rows = [("real", real), ("reconstructed", output)]
        return montage(rows, columns, f"Stage 1 after {batches} batches (validation split)")

    return draw


def train(config: Stage1Config, *, resume: bool = False, overwrite: bool = False) -> Tokenizer:
    """Train, export to ``autoencoder_export_path`` and return the tokenizer.

    Raises:
        UserError: any mistake in configuration, data, weights or output folder.

    """
    data = require_medmnist(config.data, MedMNISTDataConfig)
    folder = RunFolder(config.output_dir)
    export = config.autoencoder_export_path
    if export.exists() and not (resume or overwrite):
        raise UserError(
            f"{export} exists; replace it with --overwrite, or choose another "
            "autoencoder_export_path."
        )
    train_set, val_set = medmnist.load(data, "train"), medmnist.load(data, "val")
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = build_module(config)
    require_writable(export.parent)  # found out now, not after hours of training
    folder.claim(config, resume=resume, overwrite=overwrite)
    parameters = sum(p.numel() for p in module.autoencoder.parameters())
    say(
        f"Stage 1: {data.dataset_name}, {len(train_set)} training and {len(val_set)} validation "
        f"volumes of {data.size}^3; {parameters / 1e6:.1f} M parameters, "
        f"{module.autoencoder.fsq.codebook_size} codes"
    )
    say(f"run folder: {folder.root}; tokenizer will be written to {export}")
    callbacks: list[Callback] = [TrainingProgress("Stage 1", data.batch_size)]
    preview = config.callbacks.preview
    if preview.every_n_steps:
        draw = _preview(module, val_set, preview.num_volumes)
        callbacks.append(Previews(folder.previews, preview.every_n_steps, draw))
    trainer = build_trainer(config, folder, monitor="val/psnr", mode="max", callbacks=callbacks)
    train_batches = loader(train_set, data, train=True, seed=config.seed)
    if resume:  # workers fetch before Lightning tells them the epoch
        set_epoch(train_batches, folder.epochs_done())
    trainer.fit(
        module,
        train_batches,
        loader(val_set, data, train=False, seed=config.seed),
        ckpt_path=str(folder.last_checkpoint) if resume else None,
        weights_only=True,
    )
    tokenizer = tokenizer_of(module.cpu(), train_set.class_names)
    if trainer.is_global_zero:
        tokenizer.save(export)
        say(f"tokenizer {tokenizer.digest[:12]} written to {export}")
    return tokenizer


def load_tokenizer(config: Stage1Config) -> Tokenizer:
    """Read the tokenizer that this configuration exports.

    Raises:
        UserError: not trained yet, or damaged.

    """
    device = resolve_device(config.trainer.accelerator)
    return Tokenizer.load(config.autoencoder_export_path, device)


def limited(volumes: VolumeSet, limit: int | float | None, batch_size: int) -> VolumeSet:
    """Return the first ``limit`` batches (int) or that share (float) of a set; all for None, 0."""
    if not limit:  # 0 switches off validation while training, not a measurement that is asked for
        return volumes
    count = limit * batch_size if isinstance(limit, int) else round(limit * len(volumes))
    count = max(1, min(len(volumes), int(count)))
    return replace(
        volumes,
        images=volumes.images[:count],
        labels=volumes.labels[:count],
        names=volumes.names[:count],
    )


def measure(config: Stage1Config, split: Literal["val", "test"]) -> dict[str, object]:
    """Return the exported tokenizer's figures on a split; ``test`` writes ``metrics.json``.

    Raises:
        UserError: not trained yet; data that cannot be read.

    """
    data = require_medmnist(config.data, MedMNISTDataConfig)
    tokenizer = load_tokenizer(config)
    volumes = limited(medmnist.load(data, split), config.trainer.limit_val_batches, data.batch_size)
    batches = loader(volumes, data, train=False, seed=config.seed)
    figures = evaluate_reconstruction(tokenizer, batches, volumes.class_names)
    if split == "test":
        source = provenance(seed=config.seed, tokenizer=tokenizer.digest, config=dump(config))
        write_json(RunFolder(config.output_dir).metrics, reconstruction=figures, provenance=source)
    return asdict(figures)
