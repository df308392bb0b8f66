"""What is compared: contenders that do the same work, each in a process of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Work:
    """What a contender's setup returns: one repeat of the work, ready to be timed.

    ``flops`` counts the floating point operations of a repeat that convolutions and matrix products
    need (a multiply-add is two), whatever way they are computed; None where that says nothing.
    """

    run: Callable[[], object]
    flops: float | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Contender:
    """A way to do the work.

    ``setup(**arguments)`` is called once, in the contender's own process; it must be a module-level
    function, and the arguments plain data.
    """

    name: str
    setup: Callable[..., Work]
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """What is claimed of a case against one rival: a least ratio of times, or less memory."""

    rival: str
    ratio: float | None = None
    """prod9 is at least this many times as fast."""
    less_memory: bool = False
    """prod9's peak memory is below the rival's."""


@dataclass(frozen=True)
class Case:
    """One row of a table: the same work done by prod9 (the first contender) and its rivals."""

    name: str
    title: str
    """One sentence: what is done, how large, what counts as one repeat."""
    contenders: tuple[Contender, ...]
    goals: tuple[Goal, ...] = ()
    repeats: int = 9
    warmup: int = 2
    ceiling: Literal["conv3d", "matmul"] | None = None
    """The machine's rate that bounds the work, measured in the same run."""
    per_repeat: dict[str, float] = field(default_factory=dict)
    """How much a repeat does, such as {"volumes": 4}: rates are reported from it."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """What decides the figures besides the code; written to the result as it is."""
    seed: int = 0
