"""The processes of one run: which of them this one is, how prod9 starts them, how they end.

Every process runs the whole command. torchrun and srun start all of them. Without either, the
process that the user has started is number 0 and starts the others as copies of its own command.
This module needs neither PyTorch nor Lightning, so that ``--help`` starts fast.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prod9.errors import Prod9Error

LOST = 75
"""Exit code (EX_TEMPFAIL) of a process that stopped because another one had ended."""
_GRACE_SECONDS = 60.0
"""Process 0 may go on for this long after another has failed; a wait for a GPU has no end."""
_LEAVE_SECONDS = 10.0
"""The other processes may take this long to end after process 0 has failed."""
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_started: list[subprocess.Popen[bytes]] = []
_store: list[Any] = []


@dataclass(frozen=True)
class Place:
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
    if int(environment.get("WORLD_SIZE", 1)) > 1 and "RANK" in environment:
        world = int(environment["WORLD_SIZE"])
        per_node = int(environment.get("LOCAL_WORLD_SIZE", world))
        return Place(
            int(environment["RANK"]), world, int(environment.get("LOCAL_RANK", 0)), per_node
        )
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        world = int(environment["SLURM_STEP_NUM_TASKS"])
        per_node = world // int(environment.get("SLURM_STEP_NUM_NODES", 1))
        local_rank = int(environment["SLURM_LOCALID"])
        return Place(int(environment["SLURM_PROCID"]), world, local_rank, per_node)
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
    """Whether the processes have met. Whoever has joined them has imported PyTorch."""
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


def start_others(count: int, port: int) -> None:
    """Make this process number 0 of ``count`` and start the others with the same command.

    Raises:
        Prod9Error: this process does not run a command that can be started again.
    """
    if len(sys.argv) > 1 and sys.orig_argv[1 - len(sys.argv) :] != sys.argv[1:]:
        raise Prod9Error("several processes need prod9's console scripts, torchrun or srun.")
    command = [sys.executable, *sys.orig_argv[1:]]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for number in reversed(range(count)):  # in the end these are the variables of process 0
        set_environment(Place(number, count, number, count))
        if number:
            child = subprocess.Popen(
                command,
                # Ctrl-C of a terminal reaches process 0 alone, which tells the others.
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
            _started.insert(0, child)
    threading.Thread(target=_watch, daemon=True).start()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)


def _watch() -> None:
    """End this process when another one has failed and this one still waits for it."""
    while not _failed():
        if all(child.returncode == 0 for child in _started):
            return
        time.sleep(0.5)
    time.sleep(_GRACE_SECONDS)
    code, text = _verdict()
    if text:
        print(f"error: {text}", file=sys.stderr, flush=True)
    for child in _started:
        child.kill()
    os._exit(code)


def _failed() -> dict[int, int]:
    """Return number and exit code of the started processes that have failed."""
    codes = {number: child.poll() for number, child in enumerate(_started, 1)}
    return {number: code for number, code in codes.items() if code}


def _verdict() -> tuple[int, str]:
    """Return the exit code of a run of which a started process has failed, and what to say.

    The text is empty where that process has printed an error of its own.
    """
    failed = _failed()
    # A process that noticed the end of another one is not the cause.
    number, code = next(
        ((number, code) for number, code in failed.items() if code != LOST),
        next(iter(failed.items()), (0, LOST)),
    )
    if code > 0:
        return code, ""
    how = f"process {number} of {len(_started) + 1} was ended by {signal.Signals(-code).name}"
    if code == -signal.SIGKILL:
        how += " (by hand, or because the machine had too little memory)"
    return 128 - code, how


def share_store(store: Any) -> None:
    """Use a ``torch.distributed.Store`` to agree on who prints why a run fails."""
    _store[:] = [store]


def speaks_first() -> bool:
    """Whether this process is to print why the run fails: the first one that asks.

    Before the processes have met, all of them find the same mistake, and the first one of each
    machine prints it.
    """
    if _store:
        try:
            return _store[0].add("failed", 1) == 1
        except RuntimeError:  # the process that holds the store has printed it and left
            return False
    place = placed()
    return place is None or place.local_rank == 0


def is_loss(error: Exception) -> bool:
    """Whether an error of gloo or NCCL says that another process cannot be reached any more."""
    text = f"{type(error).__name__} {error}".lower()
    signs = ("connection", "closed by peer", "broken pipe", "remote process", "timed out")
    theirs = any(name in text for name in ("gloo", "nccl", "dist"))
    return world_size() > 1 and theirs and any(sign in text for sign in (*signs, "timeout"))


def loss_of_another(error: Exception) -> tuple[int, str]:
    """Return the exit code, and what to print, of a process that has lost another one."""
    until = time.monotonic() + _LEAVE_SECONDS
    while _started and {LOST} >= {*_failed().values()} and time.monotonic() < until:
        time.sleep(0.1)
    code, text = _verdict() if _started else (LOST, "")
    if code != LOST and not text:
        return code, ""  # that process has said why
    reason = text or f"another process of this run has ended ({str(error).strip().splitlines()[0]})"
    if not speaks_first():
        return code, ""
    return code, (
        f"error: {reason}; what was written is whole: training continues from its last checkpoint "
        "with --resume, on any number of devices."
    )


def end_others(failed: bool) -> int:
    """Wait for the processes that this one has started; stop them where it has ``failed``.

    Returns:
        The exit code of one that has failed, 0 without.
    """
    until = time.monotonic() + _LEAVE_SECONDS
    if failed:
        leave()  # a process that waits for this one notices it
        with suppress(subprocess.TimeoutExpired):
            for child in _started:
                child.wait(1.0)
        for child in _started:
            child.terminate()
    for child in _started:
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, until - time.monotonic()) if failed else None)
        child.kill()
        child.wait()
    code = _verdict()[0] if _failed() else 0
    _started.clear()
    return code


def leave() -> None:
    """Close the connections to the other processes, which would otherwise wait for this one."""
    if _joined():
        sys.modules["torch.distributed"].destroy_process_group()


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
