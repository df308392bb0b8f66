"""Stage 1 from its configuration: data, networks, losses, run, export."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch

from prod9.config import Stage1Config
from prod9.config.data import CroppedSourceConfig, FolderPreprocessingConfig
from prod9.config.load import dump
from prod9.config.loss import PerceptualLossConfig
from prod9.data.crops import examples, volume_loader
from prod9.data.dataset import Dataset, open_splits
from prod9.data.download import fetch
from prod9.errors import Prod9Error
from prod9.files import require_writable
from prod9.label_codes import PARTS, LabelCodes
from prod9.losses.feature_loss import build_feature_loss
from prod9.losses.medicalnet import load_weights
from prod9.losses.perceptual import MedicalNetPerceptualLoss
from prod9.losses.weights import (
    MEDICALNET_SHA256,
    MEDICALNET_URL,
    find_medicalnet,
    medicalnet_cache_path,
    missing_weights_message,
)
from prod9.montage import montage
from prod9.networks.discriminator import MultiScaleDiscriminator
from prod9.runtime.cache import cache_dir
from prod9.runtime.console import say
from prod9.runtime.device import resolve_device
from prod9.runtime.distributed import is_main, main_first, of_main
from prod9.tokenizer import CHANNELS, Tokenizer, TokenizerSpec, build_autoencoder
from prod9.training.display.previews import Preview
from prod9.training.initial import start_stage1
from prod9.training.stage1_module import Stage1Module
from prod9.training.trainer import (
    TrainingData,
    begin,
    prepare_training,
    run_training,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fetch_medicalnet(config: PerceptualLossConfig) -> Path:
    """Find MedicalNet's weights: at ``weights_path``, then in the cache, then on the network.

    Raises:
        Prod9Error: nowhere; one sentence with the three ways out.
    """
    found = find_medicalnet(config.weights_path, cache_dir())
    if found is not None:
        return found
    target = medicalnet_cache_path(cache_dir())
    if not config.download:
        raise Prod9Error(missing_weights_message(target, "loss.perceptual.download is false"))
    try:
        return fetch(
            MEDICALNET_URL,
            target,
            digest=f"sha256:{MEDICALNET_SHA256}",
            allowed=True,
            what="MedicalNet ResNet-10 weights",
            hint="",
        )
    except Prod9Error as error:
        raise Prod9Error(missing_weights_message(target, str(error).rstrip("."))) from error


def build_perceptual(config: PerceptualLossConfig) -> MedicalNetPerceptualLoss:
    """Return the perceptual loss; says which weights it uses."""
    with main_first():  # the others find the file there
        path = fetch_medicalnet(config)
    say(f"perceptual loss: {config.network_type}, weights {path}")
    return MedicalNetPerceptualLoss(load_weights(path))


def build_discriminator(config: Stage1Config) -> MultiScaleDiscriminator | None:
    """Return the untrained discriminator, where there is an adversarial loss."""
    if config.loss.adversarial.weight <= 0:
        return None
    sizes = config.model.discriminator
    return MultiScaleDiscriminator(CHANNELS, sizes.channels, sizes.num_layers_d, sizes.num_d)


def build_module(config: Stage1Config) -> Stage1Module:
    """Return the training module with untrained networks."""
    # In this order: the discriminator's weights are drawn first.
    discriminator = build_discriminator(config)
    autoencoder = build_autoencoder(config.model.autoencoder)
    module = Stage1Module(config, autoencoder, build_feature_loss(config.loss), discriminator)
    prepare_training(module.autoencoder, config.trainer)
    return module


SMALLEST_SIDE = 11
"""Voxels of SSIM's window."""


def training_volumes(config: Stage1Config) -> TrainingData:
    """Open the training and validation split of a configuration.

    Raises:
        Prod9Error: data that is missing, cannot be had or cannot be read; crops that are too small.
    """
    section, seed, roi = config.data, config.seed, config.sliding_window.roi_size
    splits = open_splits(section)
    data, val = splits["train"], splits["val"]
    cropped = isinstance(section, CroppedSourceConfig)
    if min(*(roi if cropped else ()), *data.shape) < SMALLEST_SIDE:
        raise Prod9Error(
            f"sliding_window.roi_size is {list(roi)} and the volumes are {list(data.shape)}; every "
            f"side must be at least {SMALLEST_SIDE} voxels, SSIM's window: choose larger crops or "
            "a smaller data.preprocessing.spacing_mm."
        )
    names = [data.channels[c].name for c in data.image_channels]
    summary = f"{len(data)} training and {len(val)} validation volumes"
    if len(names) > 1:
        summary += f" of {len(names)} channels ({', '.join(names)})"
    summary += f", {'x'.join(map(str, data.shape))}"
    if cropped:
        summary += f", in crops of {'x'.join(map(str, roi))}"
    train, validation = (
        volume_loader(
            each, section, roi, train=each is data, seed=seed, channels=each.image_channels
        )
        for each in (data, val)
    )
    return TrainingData(train, validation, data, summary)


def label_codes_of(config: Stage1Config, data: Dataset, stride: int) -> tuple[LabelCodes, ...]:
    """Choose the patterns of each channel of labels from the training split; print how good.

    Raises:
        Prod9Error: the autoencoder's stride is 1.
    """
    preprocessing = data.preprocessing
    if not isinstance(preprocessing, FolderPreprocessingConfig) or not preprocessing.labels:
        return ()
    if stride < 2:
        raise Prod9Error(
            "labels need several voxels per token; give model.autoencoder.num_channels another "
            "level, or stem_stride: 2."
        )
    found: list[LabelCodes] = []
    for number, (name, values) in enumerate(preprocessing.labels.items()):
        channel = len(preprocessing.channels) + number * PARTS
        codes = LabelCodes.fit(
            name,
            values,
            range(len(data)),
            lambda item, channel=channel: data.whole(item, channel),
            stride=stride,
            levels=config.model.autoencoder.levels,
            seed=config.seed,
        )
        found.append(codes)
        say(f"{name}: {len(values)} labels as {PARTS} tokens a cell")
    return tuple(found)


def tokenizer_of(module: Stage1Module, data: Dataset) -> Tokenizer:
    """Freeze the averaged weights of a module as a tokenizer."""
    config = module.config
    spec = TokenizerSpec(
        autoencoder=config.model.autoencoder,
        dataset_name=config.data.dataset_name,
        volume_shape=data.shape,
        spacing_mm=data.spacing_mm or (1.0, 1.0, 1.0),
        class_names=data.label_names,
        preprocessing=data.preprocessing,
        labels=label_codes_of(config, data, module.autoencoder.stride),
        train_subjects=tuple(sorted(set(data.subjects))),
        config_yaml=dump(config),
    )
    autoencoder = build_autoencoder(config.model.autoencoder)
    autoencoder.load_state_dict(module.ema.network.state_dict())
    return Tokenizer(spec, autoencoder)


def _preview(module: Stage1Module, volumes: TrainingData, count: int) -> Preview:
    """Rows of validation volumes above their reconstructions, always the same ones."""
    shown = examples(volumes.val, count)
    columns = [volumes.data.label_names[label] for label in shown.labels]

    @torch.no_grad()
    def draw(batches: int) -> "Figure":
        output = module.ema.network(shown.volumes.to(module.device)).volume
        rows = [("real", shown.volumes), ("reconstructed", output.float().clamp(0, 1))]
        return montage(rows, columns, f"Stage 1 after {batches} batches (validation split)")

    return draw


def train(config: Stage1Config, *, resume: bool = False, overwrite: bool = False) -> Tokenizer:
    """Train, export to ``autoencoder_export_path`` and return the tokenizer.

    All processes of a distributed run come here; the main one writes.

    Raises:
        Prod9Error: any mistake in configuration, data, weights or output folder.
    """
    folder = begin(config, resume=resume, overwrite=overwrite)
    export = config.autoencoder_export_path
    if not (resume or overwrite) and of_main(is_main() and export.exists()):
        raise Prod9Error(
            f"{export} exists; replace it with --overwrite, or choose another "
            "autoencoder_export_path."
        )
    if is_main():
        require_writable(export.parent)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module, parts = build_module(config), config.training.parts
    if config.init_from is not None:
        start_stage1(module, config.init_from)
    elif parts != "all":
        raise Prod9Error(f"training.parts={parts} needs init_from, the tokenizer to start from.")
    module.autoencoder.encoder.requires_grad_(parts == "all")
    volumes = training_volumes(config)
    say(f"Stage 1: {module.autoencoder.fsq.codebook_size} codes, to be written to {export}")
    preview = partial(_preview, module, volumes)
    if parts != "none":
        run_training(config, folder, module, volumes, preview, resume=resume, overwrite=overwrite)
    tokenizer = tokenizer_of(module.cpu(), volumes.data)
    if is_main():
        tokenizer.save(export)
        say(f"tokenizer {tokenizer.digest[:12]} written to {export}")
    return tokenizer


def load_tokenizer(config: Stage1Config) -> Tokenizer:
    """Read the tokenizer that this configuration exports.

    Raises:
        Prod9Error: not trained yet, or damaged.
    """
    device = resolve_device(config.trainer.accelerator)
    return Tokenizer.load(config.autoencoder_export_path, device)
