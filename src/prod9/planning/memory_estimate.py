"""Which batch fits into a memory, and what to lower where it does not."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from prod9.config import Stage1Config, Stage2Config
from prod9.config.data import CroppedSourceConfig
from prod9.planning.data_sizes import find_tokenizer, sample_sides, token_sizes
from prod9.planning.fake_steps import (
    Rehearsed,
    Sides,
    TokenSizes,
    rehearse_stage1,
    rehearse_stage2,
)
from prod9.planning.fake_tensors import Device, Setting, setting_of

GIB = 2**30
LIBRARIES = 0.41 * GIB
"""What Python holds with all that prod9 imports, before any network is built."""
_CPU_BASE, _CPU_SLACK = LIBRARIES + 0.11 * GIB, 1.4
"""With kernels that are prepared at run time; and the heap's gaps, which are large because freed
memory is kept (:mod:`prod9.runtime.allocator`). Fitted to measured steps (docs/scaling.md)."""
_GPU_BASE, _GPU_SLACK = 0.6 * GIB, 1.15
"""CUDA's context and libraries; work space of kernels, and the allocator's gaps. (Not measured.)"""


@dataclass(frozen=True)
class Footprint:
    """A training step of one process, as a function of its batch."""

    rehearse: Callable[[int, bool], Rehearsed]
    """(batch, activation checkpointing)."""
    setting: Setting
    checkpointing: bool
    """As configured."""
    devices: int = 1
    split: bool = False
    """Whether the processes share out weights, gradients and moments (FSDP)."""
    copies: bool = False
    """Whether gradients are copied on their way to the other processes (Stage 1)."""

    def needed(self, batch: int, checkpointing: bool | None = None) -> float:
        """Bytes that a process with this batch holds at most, libraries included."""
        on = self.checkpointing if checkpointing is None else checkpointing
        found = self.rehearse(batch, on)
        standing = float(found.standing)
        if self.devices > 1 and self.split:
            standing /= self.devices
        if self.devices > 1 and self.copies:
            standing += 4 * max(found.parameters.values(), default=0)
        on_gpu = self.setting.device == "cuda"
        base, slack = (_GPU_BASE, _GPU_SLACK) if on_gpu else (_CPU_BASE, _CPU_SLACK)
        return base + standing + slack * (found.peak - found.standing)

    def line(self, checkpointing: bool | None = None) -> tuple[float, float]:
        """Bytes whatever the batch, and bytes per sample.

        Rehearsed at 2 and at 8: a batch of one takes ways of its own.
        """
        few, more = (self.needed(batch, checkpointing) for batch in (2, 8))
        slope = (more - few) / 6
        return few - 2 * slope, slope

    def largest(self, limit: float, checkpointing: bool | None = None) -> int:
        """Return the largest batch that needs no more than ``limit`` bytes; 0 where none does."""
        fixed, each = self.line(checkpointing)
        batch = max(0, int((limit - fixed) / max(1.0, each)))
        while batch and (needed := self.needed(batch, checkpointing)) > limit:
            each = max(each, (needed - fixed) / batch)
            batch = min(batch - 1, int((limit - fixed) / each))
        return max(0, batch)


@lru_cache(maxsize=64)
def _stage1(
    config: Stage1Config, sides: Sides, setting: Setting, batch: int, checkpointing: bool
) -> Rehearsed:
    return rehearse_stage1(config, sides, batch, setting, checkpointing=checkpointing)


@lru_cache(maxsize=64)
def _stage2(
    config: Stage2Config, sizes: TokenSizes, setting: Setting, batch: int, checkpointing: bool
) -> Rehearsed:
    return rehearse_stage2(config, sizes, batch, setting, checkpointing=checkpointing)


def footprint(
    config: Stage1Config | Stage2Config,
    device: Device,
    *,
    devices: int = 1,
    stage1: Path | None = None,
) -> Footprint:
    """Return the footprint of a configuration's step; nothing large is ever allocated.

    Raises:
        Prod9Error: Stage 2, and nobody knows its tokenizer (``stage1``: the file that makes it).
    """
    setting = setting_of(config.trainer, device)
    if isinstance(config, Stage1Config):
        sides = sample_sides(config)
        step = partial(_stage1, config, sides, setting)  # pyright: ignore[reportArgumentType]
    else:
        sizes = token_sizes(config, find_tokenizer(config, stage1))
        step = partial(_stage2, config, sizes, setting)  # pyright: ignore[reportArgumentType]
    return Footprint(
        step,
        setting,
        config.trainer.activation_checkpointing,
        devices,
        split=config.trainer.strategy == "fsdp",
        copies=isinstance(config, Stage1Config),
    )


def advice(config: Stage1Config | Stage2Config, foot: Footprint, limit: float) -> list[str]:
    """Return what to lower, each by itself enough, so that a step needs at most ``limit`` bytes."""
    batch = config.data.batch_size
    ways: list[str] = []
    largest = foot.largest(limit)
    if largest >= batch:
        return ways
    if largest:
        ways.append(f"lower data.batch_size from {batch} to {largest}")
    if not foot.checkpointing and (with_it := foot.largest(limit, True)) > largest:
        also = "" if with_it >= batch else f" and data.batch_size={with_it}"
        ways.append(f"set trainer.activation_checkpointing=true{also}")
    if not largest:
        ways += _smaller(config, foot, limit)
    return ways


def _smaller(config: Stage1Config | Stage2Config, foot: Footprint, limit: float) -> list[str]:
    """Where not even one sample fits: smaller samples, or smaller networks."""
    fixed, each = foot.line()
    room = (limit - fixed) / max(1.0, each)
    if isinstance(config.data, CroppedSourceConfig) and room > 0:
        roi = [
            max(16, int(side * room ** (1 / 3)) // 8 * 8) for side in config.sliding_window.roi_size
        ]
        return [f"set data.batch_size=1 sliding_window.roi_size={roi}".replace(" [", "[")]
    if isinstance(config, Stage1Config):
        return ["choose fewer model.autoencoder.num_channels, or model.autoencoder.stem_stride=2"]
    return ["lower model.transformer.hidden_dim or model.transformer.num_blocks"]
