"""Stage 1 from its configuration: data, networks, losses, run, export."""

from pathlib import Path

import matplotlib.figure
import pytorch_lightning as pl
import torch

from prod9.config import Stage1Config
from prod9.config.load import dump
from prod9.config.loss import PerceptualLossConfig
from prod9.data.download import fetch
from prod9.errors import Prod9Error
from prod9.files import require_writable
from prod9.losses.feature_loss import build_feature_loss
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
from prod9.montage import montage
from prod9.networks.discriminator import MultiScaleDiscriminator
from prod9.runtime.console import say
from prod9.runtime.distributed import barrier, is_main, main_first, of_main
from prod9.tokenizer import CHANNELS, Tokenizer, TokenizerSpec, build_autoencoder
from prod9.training.previews import Preview
from prod9.training.processes import join
from prod9.training.run_folder import RunFolder
from prod9.training.stage1_module import Stage1Module
from prod9.training.strategies import require_strategy
from prod9.training.trainer import (
    prepare_training,
    require_runnable,
    resolve_device,
    run_training,
)
from prod9.training.volumes import TrainingVolumes, training_volumes


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
    discriminator = build_discriminator(config)
    module = Stage1Module(
        config,
        build_autoencoder(config.model.autoencoder),
        build_feature_loss(config.loss),
        discriminator,
    )
    prepare_training(module.autoencoder, config.trainer)
    return module


def tokenizer_of(module: Stage1Module, volumes: TrainingVolumes) -> Tokenizer:
    """Freeze the averaged weights of a module as a tokenizer."""
    config = module.config
    spec = TokenizerSpec(
        autoencoder=config.model.autoencoder,
        dataset_name=config.data.dataset_name,
        volume_shape=volumes.volume_shape,
        spacing_mm=volumes.spacing_mm,
        class_names=volumes.class_names,
        preprocessing=volumes.preprocessing,
        train_subjects=volumes.subjects,
        config_yaml=dump(config),
    )
    autoencoder = build_autoencoder(config.model.autoencoder)
    autoencoder.load_state_dict(module.ema.network.state_dict())
    return Tokenizer(spec, autoencoder)


def _preview(module: Stage1Module, volumes: TrainingVolumes, count: int) -> Preview:
    """Rows of validation volumes above their reconstructions, always the same ones."""
    examples = volumes.examples(count)
    columns = [volumes.class_names[label] for label in examples.labels]

    @torch.no_grad()
    def draw(batches: int) -> matplotlib.figure.Figure:
        output = module.ema.network(examples.volumes.to(module.device)).volume
        rows = [
            ("real", examples.volumes),
            ("reconstructed", output.float().clamp(0, 1)),
        ]
        return montage(rows, columns, f"Stage 1 after {batches} batches (validation split)")

    return draw


def train(config: Stage1Config, *, resume: bool = False, overwrite: bool = False) -> Tokenizer:
    """Train, export to ``autoencoder_export_path`` and return the tokenizer.

    All processes of a distributed run come here; the main one writes.

    Raises:
        Prod9Error: any mistake in configuration, data, weights or output folder.
    """
    join(config.trainer)
    require_strategy(config)
    folder = RunFolder(config.output_dir)
    export = config.autoencoder_export_path
    if not (resume or overwrite) and of_main(is_main() and export.exists()):
        raise Prod9Error(
            f"{export} exists; replace it with --overwrite, or choose another "
            "autoencoder_export_path."
        )
    # All that can be wrong without the data comes first: reading scans may take hours.
    if is_main():
        folder.check(config, resume=resume, overwrite=overwrite)
        require_writable(export.parent)
    require_runnable(config.trainer)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module = build_module(config)
    volumes = training_volumes(config)
    if is_main():
        folder.claim(config, resume=resume, overwrite=overwrite)
    barrier()
    parameters = sum(p.numel() for p in module.autoencoder.parameters())
    say(
        f"Stage 1: {config.data.dataset_name}, {volumes.summary}; {parameters / 1e6:.1f} M "
        f"parameters, {module.autoencoder.fsq.codebook_size} codes"
    )
    say(f"run folder: {folder.root}; tokenizer will be written to {export}")
    pictures = config.callbacks.preview
    trainer = run_training(
        config,
        folder,
        module,
        volumes.train,
        volumes.val,
        title="Stage 1",
        monitor="val/psnr",
        mode="max",
        preview=_preview(module, volumes, pictures.num_volumes) if pictures.every_n_steps else None,
        resume=resume,
    )
    tokenizer = tokenizer_of(module.cpu(), volumes)
    if trainer.is_global_zero:
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
