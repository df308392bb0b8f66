"""Memory that ran out: recognised whatever raised it, and what to lower, by how much."""

import gc
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import torch

from prod9.config import Stage1Config, Stage2Config
from prod9.errors import Prod9Error
from prod9.planning.memory_estimate import GIB, advice, footprint
from prod9.runtime import distributed
from prod9.runtime.memory_limits import available_memory
from prod9.training import processes

Where = Literal["host", "GPU", "worker", "shared"]

_HOST = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]*\)")


def where(error: BaseException) -> Where | None:
    """Return whose memory ran out; None where ``error`` is about something else.

    ``worker``: a process that loads data ended without a word, most often because the system
    killed it for the memory it took. ``shared``: it found no room to hand over what it had loaded.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return "GPU"
    if isinstance(error, MemoryError):
        return "host"
    text = str(error)
    if not isinstance(error, RuntimeError | OSError):
        return None
    if _WORKER.search(text) and ("exited unexpectedly" in text or "killed by signal" in text):
        return "shared" if "Bus error" in text else "worker"
    if "CUDA out of memory" in text or "CUDA error: out of memory" in text:
        return "GPU"
    return "host" if any(sign in text for sign in _HOST) else None


def limit_of(place: Where) -> int | None:
    """Bytes that there are in all: of the GPU, or of this machine, container or ``ulimit -v``."""
    if place == "GPU":
        if not torch.cuda.is_available():
            return None
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return available_memory()


def sentence(place: Where, config: Stage1Config | Stage2Config | None = None) -> str:
    """Say what ran out and what to lower; by how much, where a training's ``config`` is known.

    Without the full stop: the caller may have more to say.
    """
    if place == "worker":
        return (
            "a process that loads data was killed, most often because memory ran out; lower "
            "data.num_workers (0 loads in the training process) or data.batch_size"
        )
    if place == "shared":
        return (
            "the processes that load data have too little shared memory (/dev/shm) to hand over "
            "batches; give a container more (--shm-size), or set data.num_workers=0"
        )
    what = "the GPU" if place == "GPU" else "this machine"
    if config is None:
        lower = (
            "lower data.batch_size or sliding_window.roi_size; evaluate takes --device cpu"
            if place == "GPU"
            else "give fewer or smaller volumes, or lower data.batch_size"
        )
        return f"{what} has too little memory; {lower}"
    limit = limit_of(place)
    estimate = _estimate(config, place, limit) if limit is not None else ""
    return f"{what} has too little memory; {estimate or _half(config)}"


def _estimate(config: Stage1Config | Stage2Config, place: Where, limit: int) -> str:
    """Return advice with figures; an empty text where the estimate sees no lack of memory.

    (Others may have taken it.)
    """
    try:
        # Figures are those of one process: the others of a machine take as much of its memory.
        if place != "GPU":
            limit //= processes.on_this_machine()
        device = "cuda" if place == "GPU" else "cpu"
        foot = footprint(config, device, devices=distributed.world_size())
        needed = foot.needed(config.data.batch_size)
        ways = advice(config, foot, limit)
    except Exception:  # an estimate must not hide what it is about
        return ""
    if not ways:
        return ""
    return f"{', or '.join(ways)} (estimated {needed / GIB:.1f} GiB of {limit / GIB:.1f} GiB)"


def _half(config: Stage1Config | Stage2Config) -> str:
    """Without an estimate, or where it says that this should have fitted: others take memory."""
    batch = config.data.batch_size
    if batch > 1:
        return f"lower data.batch_size from {batch} to {batch // 2}, or end other programs"
    return "set trainer.activation_checkpointing=true, or end other programs"


@contextmanager
def memory_advice(config: Stage1Config | Stage2Config) -> Generator[None]:
    """Turn memory that runs out within the block into one sentence about ``config``.

    Raises:
        Prod9Error: in place of the error; what was written until then is whole.
    """
    try:
        yield
        return
    except (RuntimeError, MemoryError, OSError) as error:
        place = where(error)
        if place is None:
            raise
        # What the failed step holds is needed for the estimate.
        error.__traceback__ = None
    gc.collect()
    text = sentence(place, config)
    raise Prod9Error(
        f"{text}; what was written is whole, and --resume continues from the last checkpoint."
    )
