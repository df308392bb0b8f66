"""Whether a launcher has started this process as one of several, and as which."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


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
