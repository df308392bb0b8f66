"""Start the processes that a configuration asks for, and connect them."""

import atexit
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.plugins.environments import SLURMEnvironment
from torch.multiprocessing.spawn import ProcessExitedException, start_processes

from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime import processes
from prod9.runtime.console import say
from prod9.runtime.processes import GOES_ON, LOST, Place, placed, set_environment, world_size
from prod9.runtime.signals import STOPPING

PATIENCE = timedelta(days=1)
"""Processes wait for each other this long: one may read scans for hours. gloo notices a dead one
at once."""
_PATIENCE_OF_GPUS = timedelta(minutes=30)
"""The same for NCCL, which does not notice a dead process: longer than a checkpoint takes."""
_MEETING = timedelta(minutes=10)
"""All processes must have started within this time."""
_GRACE_SECONDS = 20.0
"""When one process has failed, the others may take this long to end by themselves."""


def on_this_machine() -> int:
    """Return how many processes of this run each machine has."""
    place = placed() if world_size() > 1 else None
    return 1 if place is None else place.per_node


def _gpus(config: TrainerConfig) -> int:
    return torch.cuda.device_count() if config.accelerator != "cpu" else 0


def wanted(config: TrainerConfig, place: Place | None = None) -> int:
    """Return how many processes ``trainer.devices`` and ``trainer.num_nodes`` ask for.

    ``auto``: all that the launcher has started; without one, a process per GPU of this machine.
    """
    if config.devices != "auto":
        return config.devices * config.num_nodes
    if place is not None:
        return place.per_node * config.num_nodes if config.num_nodes > 1 else place.world_size
    return max(1, _gpus(config)) * config.num_nodes


def gather(config: TrainerConfig) -> None:
    """Connect the processes that a configuration asks for; start them where no launcher has.

    Raises:
        Prod9Error: as :func:`join`.
        SystemExit: the processes that this one has started have ended.
    """
    count = wanted(config)
    if placed() is None and config.num_nodes == 1 and count > 1:
        _require_gpus(config, count)
        _start(count)
    join(config)


def _start(count: int) -> NoReturn:
    """Run this command in ``count`` processes of this machine, and end as they do."""
    if not Path(sys.argv[0]).is_file():
        raise Prod9Error("several processes need prod9's console scripts, torchrun or srun.")
    threads = max(1, (os.cpu_count() or 1) // count)  # by default each would use all cores
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port())}
    run: Any = start_processes(_run_command, (sys.argv, count), count, join=False)

    def pass_on(signum: int, _: object) -> None:
        for process in run.processes:
            if process.is_alive():
                os.kill(process.pid, signum)

    for number in STOPPING:
        signal.signal(number, pass_on)
    try:
        while not run.join(grace_period=_GRACE_SECONDS):
            pass
    except ProcessExitedException as error:
        # A process that noticed the end of another one is not the cause.
        codes = [error.exit_code, *(process.exitcode for process in run.processes)]
        code = next((code for code in codes if code not in (0, LOST)), LOST)
        if code > 0:  # the process has printed why
            sys.exit(code)
        number = codes.index(code, 1) - 1
        how = signal.Signals(-code).name
        if code == -signal.SIGKILL:
            how += " (by hand, or because the machine had too little memory)"
        say(f"error: process {number} of {count} was ended by {how}; {GOES_ON}")
        sys.exit(128 - code)
    sys.exit(0)


def _run_command(rank: int, command: Sequence[str], count: int) -> None:
    """Run a console script again, as process ``rank`` of ``count``."""
    if sys.platform != "win32":  # Ctrl-C reaches the first process alone, which passes it on
        os.setsid()
    set_environment(Place(rank, count, rank, count))
    sys.argv = [*command]
    runpy.run_path(command[0], run_name="__main__")


def _require_gpus(config: TrainerConfig, per_node: int) -> None:
    gpus = _gpus(config)
    if 0 < gpus < per_node:
        raise Prod9Error(
            f"trainer.devices={config.devices} needs {per_node} GPUs, but there are {gpus}; "
            "set trainer.devices=auto, which takes what there is, and let every process see all "
            "GPUs of its machine (srun: --gpus-per-node in place of --gpus-per-task)."
        )


def join(config: TrainerConfig) -> None:
    """Connect to the other processes, where there are any; does nothing when called again.

    Afterwards :mod:`prod9.runtime.distributed` knows rank and world size.

    Raises:
        Prod9Error: there are not as many processes as the configuration asks for; one of them has
            not come within ten minutes.
    """
    if world_size() > 1:
        return
    place = placed()
    count, there = wanted(config, place), 1 if place is None else place.world_size
    if count != there:
        raise Prod9Error(
            f"trainer.devices={config.devices} and trainer.num_nodes={config.num_nodes} ask for "
            f"{count} processes, but there are {there}; set trainer.devices=auto, which takes what "
            "there is, or start as many with torchrun, srun or (on one machine) prod9's console "
            "scripts."
        )
    if place is None:
        return
    _require_gpus(config, place.per_node)
    if "MASTER_ADDR" not in os.environ:
        _set_srun_environment(place)
    try:
        store = next(iter(dist.rendezvous("env://", timeout=_MEETING)))[0]
    except dist.DistError as error:
        raise Prod9Error(
            f"the {there} processes of this run were not connected within "
            f"{_MEETING.seconds // 60} minutes: one has not started, or cannot reach "
            f"{os.environ.get('MASTER_ADDR')} port {os.environ.get('MASTER_PORT')}."
        ) from error
    processes.share_store(store)
    use_gpu = _gpus(config) > 0
    if use_gpu:
        torch.cuda.set_device(place.local_rank)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if use_gpu else "gloo",
        store=dist.PrefixStore("prod9", store),
        rank=place.rank,
        world_size=there,
        timeout=PATIENCE,
    )
    if use_gpu:  # PyTorch has no public way to give two backends two timeouts
        group = cast(Any, dist.group.WORLD)
        group._get_backend(torch.device("cuda"))._set_default_timeout(_PATIENCE_OF_GPUS)
    atexit.register(processes.leave)


def _set_srun_environment(place: Place) -> None:
    """Set the variables of torchrun for a process that srun has started."""
    hosts = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    address = SLURMEnvironment.resolve_root_node_address(hosts) or "127.0.0.1"
    os.environ["MASTER_ADDR"] = address
    # All processes of a job must use one port, and two jobs on a machine different ones.
    os.environ.setdefault("MASTER_PORT", str(15000 + int(os.environ.get("SLURM_JOB_ID", "0")[-4:])))
    set_environment(place)
