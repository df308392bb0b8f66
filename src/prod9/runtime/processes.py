"""The processes of one run: which of them this one is, and what each says when the run fails.

Every process runs the whole command. torchrun or srun starts them, or the console script itself
(:mod:`prod9.training.processes`). This module imports neither PyTorch nor Lightning, so that
``--help`` starts fast.
"""

import multiprocessing
import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from prod9.errors import Prod9Error

LOST = 75
"""Exit code (EX_TEMPFAIL) of a process that stopped because another one had ended."""
GOES_ON = (
    "what was written is whole: training continues from its last checkpoint with --resume, on any "
    "number of devices."
)
_store: list[Any] = []


class Place(NamedTuple):
    """The place of a process among those of its run."""

    rank: int
    world_size: int
    local_rank: int
    """Number on its machine."""
    per_node: int
    """Processes on each machine."""


def placed(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return what a launcher says in the environment; None without one, or for one process.

    srun is recognised by the variables of a job step with several tasks: a batch script, which is
    one process, has those of the job alone.
    """

    def number(name: str, default: int = 0) -> int:
        return int(environment.get(name, default))

    world = number("WORLD_SIZE", 1)
    if world > 1 and "RANK" in environment:
        per_node = number("LOCAL_WORLD_SIZE", world)
        return Place(number("RANK"), world, number("LOCAL_RANK"), per_node)
    world = number("SLURM_STEP_NUM_TASKS", 1)
    if world > 1 and "SLURM_PROCID" in environment:
        per_node = world // number("SLURM_STEP_NUM_NODES", 1)
        return Place(number("SLURM_PROCID"), world, number("SLURM_LOCALID"), per_node)
    return None


def set_environment(place: Place) -> None:
    """Set the variables by which torchrun tells PyTorch and Lightning which process this is."""
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.per_node),
        "GROUP_RANK": str(place.rank // place.per_node),
    }


def _joined() -> bool:
    """Whether the processes are connected; a process that is has imported PyTorch."""
    dist: Any = sys.modules.get("torch.distributed")
    return dist is not None and dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the number of this process, 0 to :func:`world_size` - 1."""
    return int(sys.modules["torch.distributed"].get_rank()) if _joined() else 0


def world_size() -> int:
    """Return the number of processes."""
    return int(sys.modules["torch.distributed"].get_world_size()) if _joined() else 1


def is_main() -> bool:
    """Whether this is process 0, which writes files and prints."""
    return rank() == 0


def leave() -> None:
    """Close the connections to the other processes, which would otherwise wait for this one."""
    if _joined():
        sys.modules["torch.distributed"].destroy_process_group()


def share_store(store: Any) -> None:
    """Use a ``torch.distributed.Store`` to agree on which process prints why a run fails."""
    _store[:] = [store]


def speaks_first() -> bool:
    """Whether this process prints why the run fails: the first one that asks.

    Before the processes are connected, all find the same mistake, and the first one of each machine
    prints it.
    """
    if _store:
        try:
            return _store[0].add("failed", 1) == 1
        except RuntimeError:  # the process that holds the store has printed it and ended
            return False
    place = placed()
    return place is None or place.local_rank == 0


def is_loss(error: Exception) -> bool:
    """Whether an error of gloo or NCCL says that another process cannot be reached any more."""
    text = f"{type(error).__name__} {error}".lower()
    signs = ("connection", "closed by peer", "broken pipe", "remote process", "timed out")
    theirs = any(name in text for name in ("gloo", "nccl", "dist"))
    return world_size() > 1 and theirs and any(sign in text for sign in (*signs, "timeout"))


def loss_message(error: Exception) -> str:
    """Return what this process prints when it has lost another one; perhaps nothing."""
    # The process that has started this one knows which has ended, and prints it.
    if multiprocessing.parent_process() is not None or not speaks_first():
        return ""
    reason = str(error).strip().splitlines()[0]
    return f"error: another process of this run has ended ({reason}); {GOES_ON}"


def require_alone(command: str) -> None:
    """Refuse to run ``command`` in several processes, each of which would do all of it.

    Raises:
        Prod9Error: a launcher has started more than one process.
    """
    place = placed()
    if place is not None:
        raise Prod9Error(
            f"`{command}` runs in one process, but the launcher has started {place.world_size}; "
            "start it without torchrun, and with srun --ntasks=1 (train, validate, test and "
            "generate share their work)."
        )
