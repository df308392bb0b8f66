"""Start the processes of a distributed run on this machine, and watch over them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import FrameType

from rich.console import Console
from torch.distributed import TCPStore

from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime.launcher_env import placed
from prod9.training.failures import LAUNCHED, LOST
from prod9.training.processes import PATIENCE, join, require_gpus, wanted

_GRACE_SECONDS = 5.0
"""How long the others may take to end when one has died."""
_GRACE_OF_THE_ORDERLY_SECONDS = 120.0
"""The same when it ended by itself: others may still be writing."""
_PASSED_ON = ("SIGINT", "SIGTERM", "SIGUSR1")
_ORDERLY = {2, 128 + signal.SIGINT, 128 + signal.SIGTERM}
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def gather(config: TrainerConfig) -> None:
    """Make the processes that a configuration asks for and meet them; start them if nobody has.

    The process that starts others does nothing else: it waits for them and leaves with their exit
    code.

    Raises:
        Prod9Error: more processes than GPUs are asked for; as :func:`join`.
        SystemExit: in the process that has started others, when they have ended.
    """
    if placed() is None and config.num_nodes == 1 and wanted(config) > 1:
        require_gpus(config)
        sys.exit(launch(_own_command(), wanted(config)))
    join(config)


def require_alone(command: str) -> None:
    """Refuse to run ``command`` in several processes, each of which would do all of it.

    Raises:
        Prod9Error: torchrun or srun has started more than one.
    """
    place = placed()
    if place is not None:
        raise Prod9Error(
            f"{place.launcher} has started {place.world_size} processes, but `{command}` is the "
            "work of one; start it without torchrun, and with srun --ntasks=1 (train, validate, "
            "test and generate share their work)."
        )


def _own_command() -> list[str]:
    """Return the command of this process, to be run again."""
    if sys.orig_argv[-len(sys.argv) + 1 :] == sys.argv[1:] or len(sys.argv) == 1:
        return [sys.executable, *sys.orig_argv[1:]]
    raise Prod9Error("several processes need prod9's console scripts, torchrun or srun.")


def launch(command: list[str], count: int) -> int:
    """Run ``command`` ``count`` times as the processes of one run; return the exit code for all.

    When one dies the others, which wait for it, are ended, and one sentence says which it was.
    SIGINT, SIGTERM and SIGUSR1 are passed on.
    """
    # The store where the processes meet outlives each of them: it is held here.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    children = [
        subprocess.Popen(
            command,
            env=_environment(rank, count, store.port),
            # Ctrl-C of a terminal reaches this process alone, which passes it on once.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        for rank in range(count)
    ]

    def pass_on(signum: int, frame: FrameType | None) -> None:
        for child in children:
            with suppress(ProcessLookupError):
                child.send_signal(signum)

    numbers = [getattr(signal, name) for name in _PASSED_ON if hasattr(signal, name)]
    previous = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        ended = _wait(children)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return _verdict(ended, count)


def _environment(rank: int, count: int, port: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // count)
    return {
        "OMP_NUM_THREADS": str(threads),  # else each takes all cores
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        LAUNCHED: "1",
        # As torchrun: the store is there already, nobody is to make one.
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)


def _wait(children: list[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Wait until all have ended; stop those who stay when one has failed.

    Returns:
        The exit codes of those who ended by themselves, in the order in which they did.
    """
    ended: dict[int, int] = {}
    deadline = float("inf")
    while len(ended) < len(children) and time.monotonic() < deadline:
        for rank, child in enumerate(children):
            code = child.poll()
            if code is None or rank in ended:
                continue
            ended[rank] = code
            if code:
                # Who lost another one leaves in order; the one to blame may still be writing.
                orderly = code in _ORDERLY or code == LOST
                grace = _GRACE_OF_THE_ORDERLY_SECONDS if orderly else _GRACE_SECONDS
                deadline = min(deadline, time.monotonic() + grace)
        time.sleep(0.1)
    return ended


def _verdict(ended: dict[int, int], count: int) -> int:
    """Say who failed, unless they have said so themselves; return the exit code."""
    failed = {rank: code for rank, code in ended.items() if code}
    if not failed:
        return 0
    # Who noticed that another was gone is not to blame.
    blamed = {rank: code for rank, code in failed.items() if code != LOST} or failed
    died = {rank: code for rank, code in blamed.items() if code < 0}
    rank, code = next(iter((died or blamed).items()))
    if code in _ORDERLY:
        return code
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += " (by hand, or because the machine had too little memory)"
    text = (
        f"error: process {rank} of {count} {how}; the others were stopped. What was written is "
        "whole: training continues from its last checkpoint with --resume, on any number of "
        "devices."
    )
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(text, style="red")
    return code if code > 0 else 128 - code
