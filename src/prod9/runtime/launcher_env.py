"""Whether a launcher has started this process as one of several, and as which."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pytorch_lightning.plugins.environments import SLURMEnvironment


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


def speak_as_torchrun(place: Place) -> None:
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
