"""What a training run will need, told before it begins: memory, arithmetic, disk, time."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prod9.config import Stage1Config, Stage2Config
from prod9.planning.data_sizes import (
    find_tokenizer,
    load_either,
    sample_sides,
    samples_per_epoch,
    sizes_of_stage1,
    token_sizes,
    volumes_of,
)
from prod9.planning.fake_tensors import Device
from prod9.planning.memory_estimate import GIB, Footprint, advice, footprint
from prod9.planning.step_timing import CARDS, SHARE_OF_PEAK, Seconds, replay

_FROZEN = "feature network"
_AVERAGED = ("autoencoder", "transformer")
_TRIED_FLOPS = 4e11
"""A step of more is tried with a smaller batch, of two at least, and scaled."""
_MOST_FLOPS, _MOST_BYTES = 2e12, 4 * GIB
"""A step of two that has more, or needs more, is not tried: it would take minutes."""


@dataclass(frozen=True)
class Request:
    """What is asked for besides the configuration."""

    gpu_memory: float | None = None
    """GiB of each GPU; None plans for this machine's CPU."""
    devices: int = 1
    tflops: float | None = None
    """What the GPU sustains, TFLOP/s."""
    card: str | None = None
    """A name in :data:`prod9.planning.step_timing.CARDS`."""
    stage1: Path | None = None
    cases: int | None = None
    measure: bool = True
    """Whether to try the step's operations on this CPU, where the plan is for it."""

    @property
    def device(self) -> Device:
        """Of the plan."""
        asked = (self.gpu_memory, self.tflops, self.card)
        return "cuda" if any(value is not None for value in asked) else "cpu"


@dataclass(frozen=True)
class Memory:
    """Bytes of one process."""

    weights: int
    gradients: int
    moments: int
    averaged: int
    per_sample: float
    """Activations and all that grows with the batch."""
    needed: float
    """The most at any moment of a step, with libraries and kernels' work space."""
    needed_checkpointing: float
    """The same with the other value of ``trainer.activation_checkpointing``."""
    limit: float | None
    largest_batch: int | None
    largest_batch_checkpointing: int | None


@dataclass(frozen=True)
class Plan:
    """Figures of one configuration; all of them estimates."""

    config: str
    stage: int
    setting: str
    batch_size: int
    devices: int
    checkpointing: bool
    parameters: dict[str, int]
    memory: Memory
    flops: dict[str, tuple[float, float]]
    """Network -> (forward, backward) of a step of one process."""
    sample: tuple[int, ...]
    """Voxels of Stage 1's training sample, tokens of Stage 2's."""
    volume: tuple[int, int, int]
    """Voxels of a whole volume."""
    volume_is_assumed: bool
    """Whether that is the grid of BraTS releases, and no scan was looked at."""
    tokens_per_volume: int
    positions: int | None
    """Of Stage 2: what the transformer's attention sees of a sample."""
    train_volumes: int | None
    data_note: str
    steps_per_epoch: int | None
    steps: int | None
    previews: int | None
    """Pictures drawn on the way and at the end."""
    checkpoint_bytes: int
    checkpoints: int
    gathered_bytes: int
    """Of a checkpoint, in the memory of the main process's host: all of it where weights are split
    over processes; else it is written tensor by tensor."""
    token_store_bytes: int | None
    seconds_per_step: float | None
    seconds_from: str
    advice: tuple[str, ...]

    @property
    def hours(self) -> float | None:
        """Of all training steps, without validation and previews."""
        if self.steps is None or self.seconds_per_step is None:
            return None
        return self.steps * self.seconds_per_step / 3600

    def as_json(self) -> dict[str, Any]:
        """Return plain data; bytes, seconds, floating point operations."""
        return {"kind": "prod9-plan", **asdict(self), "hours": self.hours}


def make_plan(path: Path, overrides: tuple[str, ...], request: Request) -> Plan:
    """Plan a configuration's training; reads no volume and downloads nothing.

    The step is taken with tensors that have shapes and no numbers. For its time on this machine its
    operations are then done one by one (``request.measure``), unless they are too large.

    Raises:
        Prod9Error: a mistake in the configuration or the split; Stage 2 without a known tokenizer.
    """
    config = load_either(path, overrides)
    foot = footprint(config, request.device, devices=request.devices, stage1=request.stage1)
    batch = config.data.batch_size
    found = foot.rehearse(batch, foot.checkpointing)
    if isinstance(config, Stage1Config):
        tokenizer, positions = sizes_of_stage1(config), None
        sample = sample_sides(config)
    else:
        tokenizer = find_tokenizer(config, request.stage1)
        sample = token_sizes(config, tokenizer).window
        patch = config.model.transformer.patch_size
        positions = math.prod(-(-side // patch) for side in sample)
    trained = sum(n for name, n in found.parameters.items() if name != _FROZEN)
    averaged = sum(found.parameters.get(name, 0) for name in _AVERAGED)
    volumes = volumes_of(config, request.cases)
    steps_per_epoch = steps = store = None
    if volumes is not None:
        steps_per_epoch = _batches(config, samples_per_epoch(config, volumes), request.devices)
        steps = steps_per_epoch * config.trainer.max_epochs
        if isinstance(config, Stage2Config):
            codes = np.min_scalar_type(math.prod(tokenizer.network.levels) - 1).itemsize
            store = (volumes.train + volumes.val) * math.prod(tokenizer.grid) * codes
    seconds, source = _seconds(foot, batch, request)
    split = foot.split and request.devices > 1
    checkpoint = 4 * (3 * trained + averaged)
    note = "how many volumes there are is not known: the data folder is not there (--cases N)"
    return Plan(
        config=str(path),
        stage=1 if isinstance(config, Stage1Config) else 2,
        setting=str(foot.setting),
        batch_size=batch,
        devices=request.devices,
        checkpointing=foot.checkpointing,
        parameters=dict(found.parameters),
        memory=_memory(config, foot, request, trained, averaged),
        flops=dict(found.flops),
        sample=sample,
        volume=tokenizer.volume,
        volume_is_assumed=tokenizer.assumed,
        tokens_per_volume=math.prod(tokenizer.grid),
        positions=positions,
        train_volumes=None if volumes is None else volumes.train,
        data_note=note if volumes is None else volumes.note,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        previews=None if steps is None else 0 if split else _previews(config, steps),
        checkpoint_bytes=checkpoint,
        # The last, the one before, and the one that is being written.
        checkpoints=3 + config.callbacks.checkpoint.keep_best,
        gathered_bytes=checkpoint if split else 0,
        token_store_bytes=store,
        seconds_per_step=seconds,
        seconds_from=source,
        advice=tuple(advice(config, foot, request.gpu_memory * GIB)) if request.gpu_memory else (),
    )


def _memory(
    config: Stage1Config | Stage2Config,
    foot: Footprint,
    request: Request,
    trained: int,
    averaged: int,
) -> Memory:
    batch, on = config.data.batch_size, foot.checkpointing
    limit = None if request.gpu_memory is None else request.gpu_memory * GIB
    frozen = foot.rehearse(batch, on).parameters.get(_FROZEN, 0)
    return Memory(
        weights=4 * (trained + frozen),
        gradients=4 * trained,
        moments=8 * trained,
        averaged=4 * averaged,
        per_sample=foot.line()[1],
        needed=foot.needed(batch),
        needed_checkpointing=foot.needed(batch, not on),
        limit=limit,
        largest_batch=None if limit is None else foot.largest(limit),
        largest_batch_checkpointing=None if limit is None else foot.largest(limit, not on),
    )


def _batches(config: Stage1Config | Stage2Config, samples: int, devices: int) -> int:
    """Batches of an epoch in each process; the last short one is dropped, as in training."""
    share = -(-samples // devices)
    batch, limit = config.data.batch_size, config.trainer.limit_train_batches
    whole = share // batch if share > batch else 1
    if limit is None:
        return whole
    return max(1, min(whole, limit) if isinstance(limit, int) else int(whole * limit))


def _previews(config: Stage1Config | Stage2Config, steps: int) -> int:
    every = config.callbacks.preview.every_n_steps
    return -(-steps // every) if every else 0


def _seconds(foot: Footprint, batch: int, request: Request) -> tuple[float | None, str]:
    if foot.setting.device == "cuda":
        rate = request.tflops
        source = f"arithmetic at {rate:g} TFLOP/s, as --tflops says" if rate else ""
        if rate is None and request.card is not None:
            rate = CARDS[request.card] * SHARE_OF_PEAK
            source = f"arithmetic at {SHARE_OF_PEAK:.0%} of the peak of {request.card} (a guess)"
        if rate is None:
            return None, "give --tflops or --card for a time"
        flops = foot.rehearse(batch, foot.checkpointing).flops.values()
        return sum(map(sum, flops)) / (rate * 1e12), source
    if not request.measure:
        return None, "not measured"
    tried, flops = _tried(foot, batch)
    if flops > _MOST_FLOPS or foot.needed(tried) > _MOST_BYTES:
        return None, (
            f"not tried on this CPU: {tried} samples are {flops / 1e12:.2g} TFLOP in "
            f"{foot.needed(tried) / GIB:.1f} GiB, which would take minutes; for a GPU give "
            "--tflops or --card"
        )
    return step_seconds(foot, batch).of(batch), "the step's operations, tried on this machine"


def step_seconds(foot: Footprint, batch: int) -> Seconds:
    """Try the operations of a step on this machine; :meth:`Seconds.of` takes samples.

    A step that is too large is tried with a smaller batch, of two at least (PyTorch convolves a
    single volume in another way).
    """
    tried, _ = _tried(foot, batch)
    found = replay(foot.rehearse(tried, foot.checkpointing).operations)
    return Seconds(found.per_batch / tried, found.per_step)


def _tried(foot: Footprint, batch: int) -> tuple[int, float]:
    """Return how many samples are tried, and their floating point operations."""
    each = sum(map(sum, foot.rehearse(2, foot.checkpointing).flops.values())) / 2
    tried = batch if batch <= 2 else min(batch, max(2, int(_TRIED_FLOPS / each)))
    return tried, tried * each
