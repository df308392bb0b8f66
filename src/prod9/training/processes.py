"""Start or join the processes that a configuration asks for."""

import atexit
import os
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from pytorch_lightning.plugins.environments import SLURMEnvironment

from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime import processes
from prod9.runtime.processes import Place, placed, world_size

PATIENCE = timedelta(days=1)
"""Processes wait for each other this long: one may read scans for hours. gloo notices a dead one
at once."""
_PATIENCE_OF_GPUS = timedelta(minutes=30)
"""The same for NCCL, which does not notice a dead process: longer than a checkpoint takes."""
_MEETING = timedelta(minutes=10)
"""All processes must have started within this time."""


def on_this_machine() -> int:
    """Return how many processes of this run each machine has."""
    place = placed() if world_size() > 1 else None
    return 1 if place is None else place.per_node


def machines() -> int:
    """Return on how many machines this run is."""
    return world_size() // on_this_machine()


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
    """Start the processes that a configuration asks for, unless a launcher has; join them.

    Raises:
        Prod9Error: as :func:`join`.
    """
    count = wanted(config)
    if placed() is None and config.num_nodes == 1 and count > 1:
        _require_gpus(config, count)
        if "OMP_NUM_THREADS" not in os.environ:  # each process would take all cores
            threads = max(1, (os.cpu_count() or 1) // count)
            os.environ["OMP_NUM_THREADS"] = str(threads)
            torch.set_num_threads(threads)
        processes.start_others(count, find_free_network_port())
    join(config)


def _require_gpus(config: TrainerConfig, per_node: int) -> None:
    gpus = _gpus(config)
    if 0 < gpus < per_node:
        raise Prod9Error(
            f"trainer.devices={config.devices} needs {per_node} GPUs, but there are {gpus}; "
            "set trainer.devices=auto, which takes what there is, and let every process see all "
            "GPUs of its machine (srun: --gpus-per-node in place of --gpus-per-task)."
        )


def join(config: TrainerConfig) -> None:
    """Wait for the other processes, where there are any; does nothing when called again.

    Afterwards :mod:`prod9.runtime.distributed` knows rank and world size.

    Raises:
        Prod9Error: the launcher has started another number of processes than the configuration
            asks for; nobody has started them; one of them has not come within ten minutes.
    """
    if world_size() > 1:
        return
    place, count = placed(), wanted(config, placed())
    asked = f"trainer.devices={config.devices} and trainer.num_nodes={config.num_nodes} ask for"
    if place is None:
        if count > 1:
            raise Prod9Error(
                f"{asked} {count} processes, but there is one; start prod9 with torchrun or srun, "
                "or its console script with trainer.num_nodes=1."
            )
        return
    if count != place.world_size:
        raise Prod9Error(
            f"the launcher has started {place.world_size} processes, but {asked} {count}; set "
            "trainer.devices=auto, which takes what there is, or start as many."
        )
    _require_gpus(config, place.per_node)
    if "MASTER_ADDR" not in os.environ:
        _name_meeting_point(place)
    try:
        store = next(iter(dist.rendezvous("env://", timeout=_MEETING)))[0]
    except dist.DistError as error:
        raise Prod9Error(
            f"the {place.world_size} processes of this run have not met within "
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
        world_size=place.world_size,
        timeout=PATIENCE,
    )
    if use_gpu:  # PyTorch has no public way to give two backends two timeouts
        group = cast(Any, dist.group.WORLD)
        group._get_backend(torch.device("cuda"))._set_default_timeout(_PATIENCE_OF_GPUS)
    atexit.register(processes.leave)


def _name_meeting_point(place: Place) -> None:
    """Set the variables of torchrun for a process that srun has started."""
    hosts = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    address = SLURMEnvironment.resolve_root_node_address(hosts) or "127.0.0.1"
    os.environ["MASTER_ADDR"] = address
    # All processes of a job must use one port, and two jobs on a machine different ones.
    os.environ.setdefault("MASTER_PORT", str(15000 + int(os.environ.get("SLURM_JOB_ID", "0")[-4:])))
    processes.set_environment(place)
