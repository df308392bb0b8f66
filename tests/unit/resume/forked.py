"""Work in processes of its own, which can be killed, be several, or be asked for their memory.

They are forked: nothing is imported again. One thread each, as OpenMP's do not survive a fork.
"""

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_FORK = multiprocessing.get_context("fork")
_LONGEST_S = 120.0


def _child(rank: int, world: int, meeting: Path, work: Callable[..., Any], given: Any) -> None:
    torch.set_num_threads(1)
    if world > 1:
        place = f"file://{meeting}"
        dist.init_process_group("gloo", init_method=place, rank=rank, world_size=world)
    work(*given)
    if world > 1:
        dist.destroy_process_group()


def start(
    world: int, meeting: Path, work: Callable[..., Any], *given: Any, apart: bool = True
) -> list[BaseProcess]:
    """Start ``world`` processes that know of each other; ``meeting`` is a file that is not there.

    With ``apart`` each is told its rank before everything else.
    """
    assert not meeting.exists()
    processes = [
        _FORK.Process(
            target=_child, args=(rank, world, meeting, work, (rank, *given) if apart else given)
        )
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: list[BaseProcess]) -> None:
    """Wait for processes that are expected to succeed."""
    until = time.monotonic() + _LONGEST_S
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    codes = [process.exitcode for process in processes]
    kill(processes)
    assert codes == [0] * len(codes)


def kill(processes: list[BaseProcess]) -> None:
    """End processes as a power switch would."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def wait_for(what: Callable[[], bool], processes: list[BaseProcess]) -> None:
    """Return when something has happened, or a process has ended."""
    while not what() and all(process.is_alive() for process in processes):
        time.sleep(0.0005)


def _answer(channel: Connection, work: Callable[..., Any], given: Any) -> None:
    torch.set_num_threads(1)
    channel.send(work(*given))


def answer_of(work: Callable[..., Any], *given: Any) -> Any:
    """Return what a function returns in a process of its own."""
    mine, theirs = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_answer, args=(theirs, work, given))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    finally:
        process.join(_LONGEST_S)
        kill([process])


def memory_mib() -> float:
    """Return how much memory this process has."""
    fields = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(fields[fields.index("VmRSS:") + 1]) / 1024
