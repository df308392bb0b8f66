"""Which processes a command runs in, and how they find each other.

Every process runs the whole command. ``torchrun`` and ``srun`` start them; without either, prod9
does it itself (:mod:`prod9.training.launch`), in the way of ``torchrun``.
"""

import atexit
import os
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist

from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime import distributed
from prod9.runtime.launcher_env import Place, placed, speak_as_torchrun
from prod9.training import failures

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: one may read scans for hours. A dead one is noticed."""
_PATIENCE_OF_GPUS = timedelta(minutes=30)
"""The same between GPUs, where nobody notices a dead one: longer than a checkpoint is written."""
_MEETING = timedelta(minutes=10)
"""How long they may take to be there."""


def on_this_machine() -> int:
    """Return how many processes of this run each machine has."""
    place = placed() if distributed.world_size() > 1 else None
    return 1 if place is None else place.per_node


def machines() -> int:
    """Return on how many machines this run is."""
    place = placed() if distributed.world_size() > 1 else None
    return 1 if place is None else place.num_nodes


def _devices(config: TrainerConfig, place: Place | None) -> int:
    if config.devices != "auto":
        return config.devices
    if place is not None:
        return place.per_node
    use_gpus = config.accelerator != "cpu" and torch.cuda.is_available()
    return torch.cuda.device_count() if use_gpus else 1


def wanted(config: TrainerConfig, place: Place | None = None) -> int:
    """Return how many processes ``trainer.devices`` and ``trainer.num_nodes`` ask for.

    ``auto``: what the launcher has started; without one, a process per GPU of this machine.
    """
    if config.devices == "auto" and place is not None and config.num_nodes == 1:
        return place.world_size
    return _devices(config, place) * config.num_nodes


def _require_agreement(config: TrainerConfig, place: Place) -> None:
    asked = wanted(config, place)
    if asked != place.world_size:
        raise Prod9Error(
            f"{place.launcher} has started {place.world_size} processes, but trainer.devices="
            f"{config.devices} and trainer.num_nodes={config.num_nodes} ask for {asked}; set "
            "trainer.devices=auto, which takes what there is, or start as many."
        )
    gpus = _gpus(config)
    if 0 < gpus <= place.local_rank:
        raise Prod9Error(
            f"process {place.local_rank} of this machine sees {gpus} GPU"
            f"{'s' if gpus > 1 else ''}; every process must see all GPUs of its machine, so start "
            "no more processes than GPUs and bind none to them (srun: --gpus-per-node in place of "
            "--gpus-per-task)."
        )


def _gpus(config: TrainerConfig) -> int:
    return torch.cuda.device_count() if config.accelerator != "cpu" else 0


def require_gpus(config: TrainerConfig) -> None:
    """Refuse to start more processes here than there are GPUs; without any, they are CPU's.

    Raises:
        Prod9Error: fewer GPUs than ``trainer.devices``.
    """
    gpus = _gpus(config)
    if 0 < gpus < wanted(config):
        raise Prod9Error(
            f"trainer.devices={config.devices}, but this machine has {gpus} GPU"
            f"{'s' if gpus > 1 else ''}; set trainer.devices=auto, which takes what there is."
        )


def _meet() -> dist.Store:
    """Return the store of the run, once the process that holds it is there."""
    return next(iter(dist.rendezvous("env://", timeout=_MEETING)))[0]


def _find_no_fault(store: dist.Store, config: TrainerConfig, place: Place) -> None:
    """Let every process see what is wrong with any: else the others would wait for it.

    Raises:
        Prod9Error: as :func:`join`; the same in all processes.
    """
    fault = ""
    try:
        _require_agreement(config, place)
    except Prod9Error as error:
        fault = str(error)
    store.set(failures.fault_of(place.rank), fault)
    try:
        found = [store.get(failures.fault_of(rank)).decode() for rank in range(place.world_size)]
    except RuntimeError as error:  # who held the store has found a fault, said so and left
        reason = str(error).splitlines()[0]
        raise Prod9Error(fault or f"the processes of this run have not met: {reason}.") from error
    if fault or any(found):
        raise Prod9Error(fault or next(filter(None, found)))


def join(config: TrainerConfig) -> None:
    """Meet the other processes, where there are any; nobody gets past this alone.

    Afterwards :mod:`prod9.runtime.distributed` knows who is who. Called again it does nothing.

    Raises:
        Prod9Error: a launcher started another number of processes than the configuration asks for;
            several are asked for, and nobody has started them.
    """
    if distributed.world_size() > 1:
        return
    place = placed()
    if place is None:
        if wanted(config) > 1:
            raise Prod9Error(
                f"trainer.devices={config.devices} and trainer.num_nodes={config.num_nodes} ask "
                f"for {wanted(config)} processes, but there is one; start prod9 with torchrun or "
                "srun, or its console script with trainer.num_nodes=1."
            )
        return
    if place.launcher == "srun":
        speak_as_torchrun(place)
    try:
        store = _meet()
    except dist.DistError as error:
        raise Prod9Error(
            f"the {place.world_size} processes of this run have not met within "
            f"{_MEETING.seconds // 60} minutes: one has not started, or cannot reach "
            f"{os.environ.get('MASTER_ADDR')} port {os.environ.get('MASTER_PORT')}."
        ) from error
    failures.share(store)
    _find_no_fault(store, config, place)
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
    if use_gpu:
        _wait_less_for_gpus()
    atexit.register(leave)


def _wait_less_for_gpus() -> None:
    """Let NCCL give up a dead process soon; what may take hours is waited for by gloo."""
    group = dist.group.WORLD
    assert group is not None
    # PyTorch has no public way to give two backends two timeouts.
    backend = cast(Any, group)._get_backend(torch.device("cuda"))
    backend._set_default_timeout(_PATIENCE_OF_GPUS)


def leave() -> None:
    """Say goodbye to the other processes, who else would think that this one has died."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
