"""How the memory of a training step grows with its batch, and what to lower where it is too much.

Two constants a device are added to what tensors hold; docs/scaling.md says how exact they are.
"""

from dataclasses import dataclass

from prod9.config import Stage1Config, Stage2Config
from prod9.planning.data_sizes import Sizes
from prod9.planning.fake_step import Device, StepCost, step_cost

GIB = 2**30
LIBRARIES = 0.41 * GIB
"""What Python holds after importing prod9, before any network is built."""
_BASE = {"cpu": LIBRARIES + 0.11 * GIB, "cuda": 0.6 * GIB}
"""Libraries, and kernels that are prepared at run time."""
_FRAGMENTATION = {"cpu": 1.4, "cuda": 1.15}
"""Memory over bytes of activations: gaps in the heap, work space of kernels."""


@dataclass(frozen=True)
class Memory:
    """The most bytes that one process holds in a step, linear in its batch."""

    fixed: float
    per_sample: float

    def needed(self, batch: int) -> float:
        """Return the bytes of a step with ``batch`` samples."""
        return self.fixed + batch * self.per_sample

    def largest(self, limit: float) -> int:
        """Return the largest batch that needs no more than ``limit`` bytes; 0 where none does."""
        return max(0, int((limit - self.fixed) / self.per_sample))


@dataclass(frozen=True)
class Estimate:
    """One training step of a configuration."""

    cost: StepCost
    samples: int
    """The batch of ``cost``: as configured, but at least 2."""
    memory: dict[bool, Memory]
    """By the value of ``trainer.activation_checkpointing``."""


def estimate_step(
    config: Stage1Config | Stage2Config, sizes: Sizes, device: Device, devices: int = 1
) -> Estimate:
    """Estimate a step of one of ``devices`` processes; nothing large is allocated."""
    few = max(2, config.data.batch_size)  # for a single sample PyTorch chooses other operations
    costs: dict[bool, StepCost] = {}
    memory: dict[bool, Memory] = {}
    for on in (False, True):
        costs[on] = cost = step_cost(config, sizes, few, device, checkpointing=on)
        twice = step_cost(config, sizes, 2 * few, device, checkpointing=on)
        held = float(cost.held)
        if devices > 1 and config.trainer.strategy == "fsdp":
            held /= devices
        elif devices > 1 and isinstance(config, Stage1Config):  # gradients are sent as a copy
            held += 4 * max(cost.parameters.values())
        once, more = (_FRAGMENTATION[device] * (each.peak - each.held) for each in (cost, twice))
        slope = (twice.held - cost.held + more - once) / few
        memory[on] = Memory(_BASE[device] + held + once - few * slope, slope)
    return Estimate(costs[config.trainer.activation_checkpointing], few, memory)


def advice(
    config: Stage1Config | Stage2Config, sizes: Sizes, estimate: Estimate, limit: float
) -> list[str]:
    """Return what to lower, each enough by itself, so that a step needs at most ``limit`` bytes."""
    batch, ways = config.data.batch_size, list[str]()
    memory = estimate.memory[config.trainer.activation_checkpointing]
    largest, with_it = memory.largest(limit), estimate.memory[True].largest(limit)
    if largest >= batch:
        return ways
    if largest:
        ways.append(f"lower data.batch_size from {batch} to {largest}")
    if with_it > largest:
        also = "" if with_it >= batch else f" and data.batch_size={with_it}"
        ways.append(f"set trainer.activation_checkpointing=true{also}")
    room = (limit - memory.fixed) / memory.per_sample
    if largest == 0 and room > 0 and sizes.sample != sizes.volume:
        roi = [max(16, int(side * room ** (1 / 3)) // 8 * 8) for side in sizes.sample]
        ways.append(f"set data.batch_size=1 sliding_window.roi_size={roi}".replace(", ", ","))
    elif largest == 0 and isinstance(config, Stage1Config):
        ways.append("choose fewer model.autoencoder.num_channels")
    elif largest == 0:
        ways.append("lower model.transformer.hidden_dim or model.transformer.num_blocks")
    return ways
