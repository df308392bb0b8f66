"""Which processes a command runs in, and how they find each other.

Every process runs the whole command. ``torchrun`` and ``srun`` start them; without either, prod9
does it itself (:mod:`prod9.build.launch`), in the way of ``torchrun``.
"""

import atexit
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import SLURMEnvironment

from prod9 import ranks
from prod9.build import failures
from prod9.config import TrainerConfig
from prod9.errors import UserError

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: one may read scans for hours. A dead one is noticed."""
_MEETING = timedelta(minutes=10)
"""How long they may take to be there."""


@dataclass(frozen=True)
class Place:
    """One process among those that a launcher has started."""

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    per_node: int
    """Processes on each machine."""

    @property
    def num_nodes(self) -> int:
        """Machines."""
        return self.world_size // self.per_node


def placed(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return what a launcher says in the environment; None without one, or for one process.

    srun is recognised by the variables of a step with several tasks. Those of the job alone are
    there in a batch script too, of which there is only one.
    """
    if int(environment.get("WORLD_SIZE", 1)) > 1 and "RANK" in environment:
        world = int(environment["WORLD_SIZE"])
        return Place(
            launcher="torchrun",
            rank=int(environment["RANK"]),
            world_size=world,
            local_rank=int(environment.get("LOCAL_RANK", 0)),
            per_node=int(environment.get("LOCAL_WORLD_SIZE", world)),
        )
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environment:
        world = int(environment["SLURM_STEP_NUM_TASKS"])
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
        return Place(
            launcher="srun",
            rank=int(environment["SLURM_PROCID"]),
            world_size=world,
            local_rank=int(environment["SLURM_LOCALID"]),
            per_node=world // nodes,
        )
    return None


def on_this_machine() -> int:
    """Return how many processes of this run each machine has."""
    place = placed() if ranks.world_size() > 1 else None
    return 1 if place is None else place.per_node


def machines() -> int:
    """Return on how many machines this run is."""
    place = placed() if ranks.world_size() > 1 else None
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
        raise UserError(
            f"{place.launcher} has started {place.world_size} processes, but trainer.devices="
            f"{config.devices} and trainer.num_nodes={config.num_nodes} ask for {asked}; set "
            "trainer.devices=auto, which takes what there is, or start as many."
        )
    gpus = torch.cuda.device_count() if config.accelerator != "cpu" else 0
    if 0 < gpus <= place.local_rank:
        raise UserError(
            f"process {place.local_rank} of this machine sees {gpus} GPU"
            f"{'s' if gpus > 1 else ''}; every process must see all GPUs of its machine, so start "
            "no more processes than GPUs and bind none to them (srun: --gpus-per-node in place of "
            "--gpus-per-task)."
        )


def join(config: TrainerConfig) -> None:
    """Meet the other processes, where there are any; nobody gets past this alone.

    Afterwards :mod:`prod9.ranks` knows who is who. Called again it does nothing.

    Raises:
        UserError: a launcher started another number of processes than the configuration asks for;
            several are asked for, and nobody has started them.

    """
    if ranks.world_size() > 1:
        return
    place = placed()
    if place is None:
        if wanted(config) > 1:
            raise UserError(
                f"trainer.devices={config.devices} and trainer.num_nodes={config.num_nodes} ask "
                f"for {wanted(config)} processes, but there is one; start prod9 with torchrun or "
                "srun, or its console script with trainer.num_nodes=1."
            )
        return
    _require_agreement(config, place)
    if place.launcher == "srun":
        _speak_as_torchrun(place)
    use_gpu = config.accelerator != "cpu" and torch.cuda.is_available()
    if use_gpu:
        torch.cuda.set_device(place.local_rank)
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=_MEETING)))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if use_gpu else "gloo",
        store=dist.PrefixStore("prod9", store),
        rank=rank,
        world_size=world,
        timeout=PATIENCE,
    )
    failures.share(store)
    atexit.register(leave)


def _speak_as_torchrun(place: Place) -> None:
    """Set the variables by which PyTorch and Lightning find the other processes."""
    job = os.environ.get("SLURM_JOB_ID", "")
    hosts = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    first = SLURMEnvironment.resolve_root_node_address(hosts) or "127.0.0.1"
    os.environ.setdefault("MASTER_ADDR", first)
    # Every process of the job must name the same one, and two jobs on a machine different ones.
    os.environ.setdefault("MASTER_PORT", str(15000 + int(job[-4:] or 0)))
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.world_size),
        "LOCAL_RANK": str(place.local_rank),
        "LOCAL_WORLD_SIZE": str(place.per_node),
        "GROUP_RANK": str(place.rank // place.per_node),
    }


def leave() -> None:
    """Say goodbye to the other processes, who else would think that this one has died."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
