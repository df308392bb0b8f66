"""What both stages of every rival share: data, a plain loop that spends seconds, the interface."""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from nibabel import nifti1
from torch import Tensor, nn

from benchmarks.timed_training import Budget, set_rate
from prod9.config.training import SchedulerConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.dataset import Dataset
from prod9.errors import Prod9Error
from prod9.metrics.psnr import psnr
from prod9.training.ema import EMA

SIDE = 28
TOKENS, CODES = 7**3, 512
HIPPOCAMPUS_SPLITS = {"train": 168, "val": 40, "test": 52}
"""Subjects, in a fixed random order."""
EMA_DECAY = 0.995
"""As in the demo's configurations."""
_BLOCK = 32
Data = dict[str, Dataset]
"""The three splits by name."""


def tensors(data: Dataset) -> tuple[Tensor, Tensor]:
    """Return all volumes of a split, float32 (N, 1, D, H, W) in [0, 1], and their labels (N,)."""
    volumes = np.stack([data.whole(item, 0) for item in range(len(data))])
    labels = [data.label_of(item, 0) for item in range(len(data))]
    return torch.from_numpy(volumes)[:, None], torch.tensor(labels)


def hippocampus(folder: Path) -> Data:
    """Read Task04_Hippocampus (Medical Segmentation Decathlon) as cubes of 28^3 voxels of 1 mm.

    The middle of each scan, filled up with zeros where it is smaller; intensities scaled from the
    0.5th to the 99.5th percentile of the scan.

    Raises:
        Prod9Error: the folder has fewer than 260 scans.
    """
    scans = sorted(path for path in (folder / "imagesTr").glob("hippocampus_*.nii.gz"))
    if len(scans) < sum(HIPPOCAMPUS_SPLITS.values()):
        raise Prod9Error(
            f"{folder} holds {len(scans)} scans imagesTr/hippocampus_*.nii.gz, not 260: give the "
            "folder of Task04_Hippocampus (medicaldecathlon.com) with --root."
        )
    order = np.random.default_rng(0).permutation(len(scans))
    found: Data = {}
    first = 0
    for split, count in HIPPOCAMPUS_SPLITS.items():
        paths = [scans[index] for index in order[first : first + count]]
        first += count
        cubes = np.stack([_middle(np.asarray(nifti1.load(path).dataobj)) for path in paths])
        names = [path.name.removesuffix(".nii.gz") for path in paths]
        spacing = (1.0, 1.0, 1.0)
        name = f"hippocampus/{split}"
        found[split] = ArrayDataset(name, cubes[:, None], names=names, spacing_mm=spacing)
    return found


def _middle(scan: np.ndarray) -> np.ndarray:
    low, high = np.percentile(scan, [0.5, 99.5])
    scaled = ((scan - low) / max(high - low, 1e-6)).clip(0, 1).astype(np.float32)
    missing = [max(0, SIDE - side) for side in scaled.shape]
    scaled = np.pad(scaled, [(m // 2, m - m // 2) for m in missing])
    starts = [(side - SIDE) // 2 for side in scaled.shape]
    return scaled[tuple(slice(start, start + SIDE) for start in starts)]


@dataclass(frozen=True)
class Rates:
    """Peak learning rates, and where they come from."""

    stage1: float
    stage2: float
    chosen: str = "a guess: not tuned"
    """Date and validation figures of :func:`benchmarks.whole_pipeline.tune`."""


class Rival(ABC):
    """Two stages of somebody else's. Networks and losses; the loop is :func:`spend`."""

    name: str
    rates: Rates
    batch: int = 8

    def __init__(self, classes: int) -> None:
        self.classes = classes

    @abstractmethod
    def first(self) -> nn.Module:
        """Return Stage 1's network, untrained."""

    @abstractmethod
    def first_loss(self, network: nn.Module, volumes: Tensor) -> Tensor:
        """Return the loss of a batch (B, 1, D, H, W)."""

    @abstractmethod
    def reconstruct(self, network: nn.Module, volumes: Tensor) -> Tensor:
        """Encode and decode volumes."""

    @abstractmethod
    def encode(self, network: nn.Module, volumes: Tensor) -> Tensor:
        """Return what Stage 2 learns of a batch of volumes."""

    @abstractmethod
    def second(self, latents: Tensor) -> nn.Module:
        """Return Stage 2's network, untrained, given all encoded training volumes."""

    @abstractmethod
    def second_loss(self, network: nn.Module, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch."""

    @abstractmethod
    def draw(self, first: nn.Module, second: nn.Module, labels: Tensor) -> Tensor:
        """Return generated volumes (B, 1, D, H, W) of the given classes (B,)."""

    def settle(self, first: nn.Module, second: nn.Module, seconds_a_volume: float | None) -> None:  # noqa: B027
        """Choose the number of steps of drawing, where it is free, so that it takes so long."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return what else decides the result, for the record."""


def spend(
    network: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    judge: Callable[[nn.Module], float],
    data: tuple[Tensor, Tensor],
    *,
    rate: float,
    batch: int,
    seconds: float,
    schedule: SchedulerConfig,
    seed: int,
) -> tuple[nn.Module, float, int]:
    """Train for some seconds: AdamW, prod9's schedule, gradients clipped to norm 1.

    Args:
        network: is trained in place.
        loss: of (network, inputs, labels).
        judge: of a network in evaluation mode; lower is better.
        data: inputs (N, ...) and labels (N,).
        rate: the peak learning rate.
        batch: size of a batch.
        seconds: the clock does not run while the network is judged.
        schedule: warm-up and decay, which end with the seconds.
        seed: of the order of the data.

    Returns:
        The last or the averaged weights, whichever are better on validation; their figure; the
        number of steps.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    optimizer.param_groups[0]["initial_lr"] = rate
    average = EMA(network, EMA_DECAY)
    budget = Budget(seconds, schedule, (), lambda: 0.0)
    stream = torch.Generator().manual_seed(seed)
    inputs, labels = data
    network.train()
    budget.start()
    for _ in itertools.count():
        for rows in torch.randperm(len(inputs), generator=stream).split(batch):
            set_rate([optimizer], budget.rate())
            optimizer.zero_grad(set_to_none=True)
            loss(network, inputs[rows], labels[rows]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update(network)
            if budget.step_done():
                choices = [network.eval(), average.network]
                figures = [judge(choice) for choice in choices]
                best = int(not figures[0] < figures[1])
                return choices[best], figures[best], budget.steps
    raise AssertionError


@torch.no_grad()
def in_blocks(work: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Apply ``work`` to some rows at a time."""
    return torch.cat([work(part) for part in inputs.split(_BLOCK)])


@torch.no_grad()
def mean_psnr(reconstruct: Callable[[Tensor], Tensor], volumes: Tensor) -> float:
    """Return the mean PSNR of reconstructions, clamped to [0, 1]."""
    made = in_blocks(reconstruct, volumes).float().clamp(0, 1)
    return float(psnr(made, volumes).mean())


@torch.no_grad()
def mean_loss(
    loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, labels: Tensor, seed: int
) -> float:
    """Return the mean loss over a split, with the same random numbers each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = zip(inputs.split(_BLOCK), labels.split(_BLOCK), strict=True)
        values = [(float(loss(x, y)), len(y)) for x, y in parts]
    return sum(value * count for value, count in values) / len(labels)


@dataclass
class Pipeline:
    """Both stages of a contender, trained."""

    reconstruct: Callable[[Tensor], Tensor]
    draw: Callable[[Sequence[int]], Tensor]
    """Labels -> volumes (B, 1, D, H, W)."""
    figures: dict[str, object]


def train_rival(
    rival: Rival,
    data: Data,
    budgets: tuple[float, float],
    schedules: tuple[SchedulerConfig, SchedulerConfig],
    rates: Rates,
    seed: int,
    seconds_a_volume: float | None,
) -> Pipeline:
    """Train both stages of a rival."""
    torch.manual_seed(seed)
    first, reached, steps = train_first(rival, data, budgets[0], schedules[0], rates.stage1, seed)
    began = time.perf_counter()
    encoded = encode_all(rival, first, data)
    encoding = time.perf_counter() - began
    second, loss, steps2 = train_second(
        rival, encoded, budgets[1], schedules[1], rates.stage2, seed
    )
    rival.settle(first, second, seconds_a_volume)
    count = [sum(p.numel() for p in network.parameters()) for network in (first, second)]
    return Pipeline(
        lambda x: rival.reconstruct(first, x),
        lambda labels: rival.draw(first, second, torch.tensor(labels)),
        {
            "validation": {"psnr": reached, "loss": loss},
            "steps": [steps, steps2],
            "parameters": count,
            "seconds_of_encoding": encoding,
            "settings": rival.settings(),
        },
    )


def train_first(
    rival: Rival, data: Data, seconds: float, schedule: SchedulerConfig, rate: float, seed: int
) -> tuple[nn.Module, float, int]:
    """Train Stage 1; return the network, its PSNR on the validation split, and the steps."""
    train, val = tensors(data["train"]), tensors(data["val"])[0]
    best, figure, steps = spend(
        rival.first(),
        lambda network, x, _: rival.first_loss(network, x),
        lambda network: -mean_psnr(lambda x: rival.reconstruct(network, x), val),
        train,
        rate=rate,
        batch=rival.batch,
        seconds=seconds,
        schedule=schedule,
        seed=seed,
    )
    return best.eval().requires_grad_(False), -figure, steps


Encoded = dict[str, tuple[Tensor, Tensor]]


def encode_all(rival: Rival, first: nn.Module, data: Data) -> Encoded:
    """Encode the training and the validation split."""
    found: Encoded = {}
    for split in ("train", "val"):
        volumes, labels = tensors(data[split])
        found[split] = in_blocks(lambda x: rival.encode(first, x), volumes), labels
    return found


def train_second(
    rival: Rival,
    encoded: Encoded,
    seconds: float,
    schedule: SchedulerConfig,
    rate: float,
    seed: int,
) -> tuple[nn.Module, float, int]:
    """Train Stage 2; return the network, its loss on the validation split, and the steps."""
    return spend(
        rival.second(encoded["train"][0]),
        rival.second_loss,
        lambda network: mean_loss(
            lambda x, y: rival.second_loss(network, x, y), *encoded["val"], seed
        ),
        encoded["train"],
        rate=rate,
        batch=rival.batch,
        seconds=seconds,
        schedule=schedule,
        seed=seed,
    )
