"""When one process of a run fails: it says why, and the others leave quietly."""

import os
from contextlib import suppress

import torch.distributed as dist

from prod9 import ranks

LAUNCHED = "PROD9_LAUNCHED"
"""Set in the environment of processes whose launcher is prod9's own, which says how they ended."""
LOST = 75
"""Exit code (EX_TEMPFAIL) of a process that stopped because another one had ended."""
GONE = (
    "another process of this run has ended, which this one cannot do without; what was written is "
    "whole: training continues from its last checkpoint with --resume, on any number of devices."
)

_stores: list[dist.Store] = []


def share(store: dist.Store) -> None:
    """Note failures where all processes of the run see them."""
    _stores[:] = [store]


def speaks() -> bool:
    """Whether this process is the first to fail, and so the one to say why; ask once."""
    for store in _stores:
        with suppress(RuntimeError):  # whoever held the store is gone
            return store.add("failed", 1) == 1
    return ranks.is_main() and os.environ.get("RANK", "0") == "0"


def is_loss(error: Exception) -> bool:
    """Whether an error says no more than that another process cannot be reached any more."""
    known = any(word in str(error).lower() for word in ("gloo", "nccl", "connection closed by"))
    return ranks.world_size() > 1 and (isinstance(error, dist.DistError) or known)


def speaks_of_loss() -> bool:
    """Whether this process is to say that another one is gone: nobody else does."""
    return LAUNCHED not in os.environ and speaks()
