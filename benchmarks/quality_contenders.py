"""Tokenizers of 28^3 voxels to 7^3 tokens of 512 codes, and how each of them is trained."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.timed_training import Budget, SpendBudget, mean_psnr, train_plainly
from prod9.config import MedMNISTDataConfig, Stage1Config
from prod9.config.load import load
from prod9.data import medmnist
from prod9.training.stage1 import training_volumes

CONFIG = Path("maskgit/demo/stage1.yaml")
SEED = 0
SHOWN = 3
"""Test volumes in the picture."""
VQVAE, MAISI_FSQ = "MONAI VQVAE", "MONAI MAISI + FSQ"


@dataclass(frozen=True)
class RivalSettings:
    """What may be chosen freely in a rival's favour."""

    widths: tuple[int, ...]
    learning_rate: float
    batch: int = 16
    criterion: Literal["l1", "mse"] = "l1"
    """The tutorials' loss, or the one that PSNR measures."""


# VQVAE's are the best of `quality_per_second.tune`'s (40 s each). MAISI's widths are those of
# medmnist3d/stage1/ffl.yaml without the last; a step of it takes too long to try many.
RIVAL_SETTINGS = {
    VQVAE: RivalSettings((64,), 3e-4, 8),
    MAISI_FSQ: RivalSettings((16, 32, 64), 1e-3),
}


@dataclass
class Trained:
    """What one training came to."""

    psnr: float
    seconds: float
    steps: int
    parameters: int
    curve: list[tuple[float, float]]
    weights: str
    """Which weights were better: "averaged" or "last"."""
    pictures: np.ndarray
    """Reconstructions of the first test volumes (N, 1, D, H, W)."""


def configuration(batch: int | None = None) -> Stage1Config:
    """Read the demo's configuration, with its own batch or a rival's."""
    overrides = [] if batch is None else [f"data.batch_size={batch}"]
    return load(CONFIG, Stage1Config, [f"seed={SEED}", *overrides])


def train_prod9(seconds: float, marks: Sequence[float], threads: int) -> Trained:
    """Train the demo's tokenizer in prod9's loop; judge the averaged weights, which it exports."""
    from benchmarks.lightning_steps import bare_trainer
    from prod9.runtime.allocator import keep_freed_memory
    from prod9.training.stage1 import build_module

    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    config = configuration()
    module, volumes = build_module(config), training_volumes(config)
    batches = list(volumes.val)

    def reconstruct(x: Tensor) -> Tensor:
        return module.ema.network(x).volume

    budget = Budget(
        seconds, config.training.scheduler, marks, lambda: mean_psnr(reconstruct, batches)
    )
    trainer = bare_trainer(config.trainer, [SpendBudget(budget)], max_epochs=10_000)
    trainer.fit(module, volumes.train)
    count = sum(p.numel() for p in module.autoencoder.parameters())
    return _trained(budget, count, "averaged", reconstruct, config)


def rival_network(rival: str, settings: RivalSettings) -> nn.Module:
    """Return a rival, untrained."""
    from benchmarks.rivals.monai_autoencoders import MaisiFSQ, vqvae

    levels = configuration().model.autoencoder.levels
    if rival == VQVAE:
        return vqvae(settings.widths[0], math.prod(levels))
    return MaisiFSQ(settings.widths, levels, groups=8)


def rival_loss(settings: RivalSettings) -> Callable[[nn.Module, Tensor], Tensor]:
    """Return the loss of a step: of the reconstruction, and VQ-VAE's own commitment term."""
    criterion = F.l1_loss if settings.criterion == "l1" else F.mse_loss

    def loss(network: nn.Module, x: Tensor) -> Tensor:
        output = network(x)
        if isinstance(output, tuple):
            return criterion(output[0], x) + output[1]
        return criterion(output, x)

    return loss


def _reconstruction(network: nn.Module, x: Tensor) -> Tensor:
    output = network(x)
    return output[0] if isinstance(output, tuple) else output


def train_rival(
    rival: str, settings: RivalSettings, seconds: float, marks: Sequence[float], threads: int
) -> Trained:
    """Train a rival; judge its last or its averaged weights, whichever are better at that moment.

    Its schedule and averaging are prod9's.
    """
    from prod9.training.ema import EMA

    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    config = configuration(settings.batch)
    network, volumes = rival_network(rival, settings), training_volumes(config)
    average = EMA(network, config.training.stability.ema_decay)
    batches = list(volumes.val)
    better: list[str] = []

    def evaluate() -> float:
        network.eval()
        judged = {
            "last": mean_psnr(lambda x: _reconstruction(network, x), batches),
            "averaged": mean_psnr(lambda x: _reconstruction(average.network, x), batches),
        }
        network.train()
        better.append(max(judged, key=lambda name: judged[name]))
        return judged[better[-1]]

    budget = Budget(seconds, config.training.scheduler, marks, evaluate)
    train_plainly(
        network, rival_loss(settings), settings.learning_rate, volumes.train, budget, average
    )
    best = {"last": network.eval(), "averaged": average.network}[better[-1]]
    count = sum(p.numel() for p in network.parameters())
    return _trained(budget, count, better[-1], lambda x: _reconstruction(best, x), config)


@torch.no_grad()
def _trained(
    budget: Budget,
    parameters: int,
    weights: str,
    reconstruct: Callable[[Tensor], Tensor],
    config: Stage1Config,
) -> Trained:
    seconds, value = budget.curve[-1]
    pictures = reconstruct(shown(config)).clamp(0, 1).numpy()
    return Trained(value, seconds, budget.steps, parameters, budget.curve, weights, pictures)


def shown(config: Stage1Config) -> Tensor:
    """Return test volumes, spread over the split: float32 (N, 1, D, H, W) in [0, 1]."""
    assert isinstance(config.data, MedMNISTDataConfig)
    images = medmnist.load(config.data, "test").images
    chosen = np.linspace(0, len(images) - 1, SHOWN).round().astype(int)
    return torch.from_numpy(images[chosen].astype(np.float32) / 255)[:, None]
