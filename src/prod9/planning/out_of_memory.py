"""Memory that ran out: recognised whatever raised it, and what to lower, by how much."""

import gc
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import torch

from prod9.config import Stage1Config, Stage2Config
from prod9.errors import Prod9Error
from prod9.planning.data_sizes import sizes_of
from prod9.planning.memory import GIB, advice, estimate_step
from prod9.runtime.distributed import world_size
from prod9.runtime.memory_limits import available_memory
from prod9.training.processes import on_this_machine

Where = Literal["host", "GPU", "worker", "shared"]

_SIGNS: tuple[tuple[Where, str], ...] = (
    ("shared", r"DataLoader worker .*Bus error"),
    ("worker", r"DataLoader worker .*(exited unexpectedly|killed by signal)"),
    ("GPU", r"OutOfMemoryError|CUDA( error:)? out of memory"),
    ("host", r"MemoryError|[Cc]an(no|')t allocate memory|not enough memory|bad_alloc"),
)
_SENTENCES: dict[Where, str] = {
    "worker": "a process that loads data was killed, most often because memory ran out; lower "
    "data.num_workers (0 loads in the training process) or data.batch_size",
    "shared": "the processes that load data have too little shared memory (/dev/shm) to hand over "
    "batches; give a container more (--shm-size), or set data.num_workers=0",
    "GPU": "the GPU has too little memory; lower data.batch_size or sliding_window.roi_size; "
    "evaluate takes --device cpu",
    "host": "this machine has too little memory; give fewer or smaller volumes, or lower "
    "data.batch_size",
}


def where(error: BaseException) -> Where | None:
    """Return whose memory ran out; None where ``error`` is about something else.

    ``worker``: a process that loads data ended without a message, most often because the system
    killed it for its memory. ``shared``: it found no room to hand over what it had loaded.
    """
    if not isinstance(error, RuntimeError | MemoryError | OSError):
        return None
    text = f"{type(error).__name__}: {error}"
    return next((place for place, sign in _SIGNS if re.search(sign, text, re.S)), None)


def sentence(place: Where) -> str:
    """Say what ran out and what to lower, without the full stop."""
    return _SENTENCES[place]


def _what_to_lower(config: Stage1Config | Stage2Config, place: Where) -> str:
    """Say what to lower in a training, and by how much."""
    batch = config.data.batch_size
    try:
        # The processes of a machine share its memory; each has its own GPU.
        if place == "GPU":
            device, limit = "cuda", torch.cuda.mem_get_info()[1]
        else:
            device, limit = "cpu", (available_memory() or 0) // on_this_machine()
        sizes = sizes_of(config)
        found = estimate_step(config, sizes, device, world_size())
        if limit and (ways := advice(config, sizes, found, limit)):
            needed = found.memory[config.trainer.activation_checkpointing].needed(batch)
            figures = f"estimated {needed / GIB:.1f} GiB of {limit / GIB:.1f} GiB"
            return f"{', or '.join(ways)} ({figures})"
    except Exception:  # an estimate must not hide what it is about
        pass
    # By the estimate it fits: other programs take memory.
    if batch > 1:
        return f"lower data.batch_size from {batch} to {batch // 2}, or end other programs"
    return "set trainer.activation_checkpointing=true, or end other programs"


@contextmanager
def memory_advice(config: Stage1Config | Stage2Config) -> Generator[None]:
    """Turn memory that runs out within the block into a :class:`Prod9Error` about ``config``."""
    try:
        yield
        return
    except (RuntimeError, MemoryError, OSError) as error:
        if (place := where(error)) is None:
            raise
        error.__traceback__ = None  # it holds the tensors of the failed step
    gc.collect()
    text = sentence(place)
    if place in ("host", "GPU"):
        text = f"{text.split(';')[0]}; {_what_to_lower(config, place)}"
    raise Prod9Error(
        f"{text}; what was written is whole, and --resume continues from the last checkpoint."
    )
