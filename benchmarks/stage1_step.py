"""One Stage 1 training step, generator and discriminator, against MONAI's autoencoders."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.contender import Case, Contender, Goal, Work
from benchmarks.flops import flops_of
from benchmarks.lightning_steps import LightningSteps, leave_threads
from prod9.config import Stage1Config
from prod9.config.load import load
from prod9.data.crops import Batch
from prod9.losses.feature_loss import build_feature_loss
from prod9.networks.discriminator import MultiScaleDiscriminator
from prod9.tokenizer import CHANNELS, build_autoencoder
from prod9.training.stage1_module import Stage1Module

if TYPE_CHECKING:
    from benchmarks.rivals.monai_autoencoders import TutorialTraining

MAISI, KL = "MONAI AutoencoderKlMaisi", "MONAI AutoencoderKL"

# Of each configuration and side: batch, timed repeats, warm-up. The wide network on 64^3 takes
# MONAI half a minute a step on two cores.
_SIZES = {
    ("ffl", 28): (8, 9, 2),
    ("ffl", 64): (2, 9, 2),
    ("base", 28): (2, 5, 2),
    ("base", 64): (1, 3, 1),
}


def configuration(name: str, side: int, batch: int) -> Stage1Config:
    """Read a MedMNIST configuration; the discriminator joins at once."""
    return load(
        Path(f"maskgit/medmnist3d/stage1/{name}.yaml"),
        Stage1Config,
        [
            "loss.discriminator_iter_start=0",
            f"data.batch_size={batch}",
            # The file holds 28 or 64; a step does not look at it, any side will do for a test.
            *([f"data.size={side}"] if side in (28, 64) else []),
        ],
    )


def build_module(config: Stage1Config) -> Stage1Module:
    """Return what ``prod9.training.stage1.build_module`` returns, MedicalNet with random weights.

    The time of a step does not depend on their values, and they cannot always be downloaded.
    """
    sizes = config.model.discriminator
    return Stage1Module(
        config,
        build_autoencoder(config.model.autoencoder),
        build_feature_loss(config.loss, untrained=True),
        MultiScaleDiscriminator(CHANNELS, sizes.channels, sizes.num_layers_d, sizes.num_d),
    )


def images(batch: int, side: int, seed: int) -> Tensor:
    """Return the batch that all contenders see: smooth volumes in [0, 1]."""
    stream = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 1, *[-(-side // 4)] * 3, generator=stream)
    return F.interpolate(coarse, size=[side] * 3, mode="trilinear").contiguous()


def padded(volumes: Tensor, stride: int) -> Tensor:
    """Enlarge volumes to a multiple of ``stride``, as MONAI's users must before training."""
    missing = -volumes.shape[-1] % stride
    before = missing // 2
    return F.pad(volumes, [before, missing - before] * 3, mode="replicate") if missing else volumes


def prod9_step(name: str, side: int, batch: int, seed: int) -> Work:
    """Set up prod9: its module in its Lightning loop."""
    from prod9.runtime.allocator import keep_freed_memory

    threads = leave_threads()
    keep_freed_memory()
    torch.manual_seed(seed)
    config = configuration(name, side, batch)
    module = build_module(config)
    data = Batch(
        images(batch, side, seed),
        torch.zeros(batch, dtype=torch.long),
        [f"synthetic/{i}" for i in range(batch)],
    )
    steps = LightningSteps(module, data, config.trainer, threads)
    # A real step is counted, whatever it is made of; it warms up as well.
    return Work(steps.step, steps.flops(), parameters(module.autoencoder, module.discriminator))


def monai_step(network: str, name: str, side: int, batch: int, seed: int) -> Work:
    """Set up a rival: MONAI's network in the loop of MONAI's tutorials."""
    torch.manual_seed(seed)
    config = configuration(name, side, batch)
    training = monai_training(network, config)
    stride = 2 ** (len(config.model.autoencoder.num_channels) - 1)
    # Once, outside the clock; prod9 pads in every step.
    volumes = padded(images(batch, side, seed), stride)

    def step() -> object:
        return training.step(volumes)

    return Work(step, flops_of(step), parameters(training.autoencoder, training.discriminator))


def monai_training(network: str, config: Stage1Config) -> "TutorialTraining":
    """Return a rival of the configuration's widths, depth, latent channels and feature loss."""
    from benchmarks.rivals import monai_autoencoders as rivals

    sizes, judge = config.model.autoencoder, config.model.discriminator
    feature = build_feature_loss(config.loss, untrained=True)
    build = {MAISI: rivals.maisi, KL: rivals.autoencoder_kl}[network]
    return rivals.TutorialTraining(
        build(
            sizes.num_channels,
            sizes.num_res_blocks,
            len(sizes.levels),
            sizes.norm_num_groups,
        ),
        rivals.patch_discriminator(judge.channels, judge.num_layers_d),
        feature.term,
        feature.weight,
    )


def parameters(*networks: nn.Module | None) -> int:
    """Count all that is trained."""
    return sum(p.numel() for network in networks if network for p in network.parameters())


def _case(name: str, side: int) -> Case:
    batch, repeats, warmup = _SIZES[name, side]
    config = configuration(name, side, batch)
    widths = list(config.model.autoencoder.num_channels)
    what = {"name": name, "side": side, "batch": batch, "seed": 0}
    feature = "focal frequency" if config.loss.loss_type == "ffl" else "MedicalNet perceptual"
    return Case(
        name=f"stage1_step_{name}_{side}",
        title=f"One Stage 1 training step (generator and discriminator, {feature} loss) on a batch "
        f"of {batch} volumes of {side}^3, widths {widths}.",
        contenders=(
            Contender("prod9", prod9_step, what),
            *(Contender(rival, monai_step, {"network": rival, **what}) for rival in (MAISI, KL)),
        ),
        goals=(
            Goal(MAISI, ratio=2.0),
            Goal(KL, ratio=1.5),
            Goal(MAISI, less_memory=True),
            Goal(KL, less_memory=True),
        ),
        repeats=repeats,
        warmup=warmup,
        ceiling="conv3d",
        per_repeat={"volumes": batch},
        sizes={
            "config": f"maskgit/medmnist3d/stage1/{name}.yaml",
            "batch": batch,
            "side": side,
            "rivals_side": side + -side % 2 ** (len(widths) - 1),
            "widths": widths,
            "res_blocks": config.model.autoencoder.num_res_blocks,
            "levels": list(config.model.autoencoder.levels),
            "discriminator": config.model.discriminator.model_dump(),
            "loss": config.loss.loss_type,
        },
    )


def cases() -> list[Case]:
    """Return the four cases: two configurations, two sizes of volumes."""
    return [_case(name, side) for name, side in _SIZES]
