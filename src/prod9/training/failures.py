"""When one process of a run fails: it says why, and the others leave quietly."""

import os
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

from prod9.runtime import distributed
from prod9.runtime.launcher_env import placed, speak_as_torchrun

LAUNCHED = "PROD9_LAUNCHED"
"""Set in the environment of processes whose launcher is prod9's own, which says how they ended."""
LOST = 75
"""Exit code (EX_TEMPFAIL) of a process that stopped because another one had ended."""
_GONE = (
    "another process of this run has ended, which this one cannot do without ({reason}); what was "
    "written is whole: training continues from its last checkpoint with --resume, on any number of "
    "devices."
)
_ABOUT_CONNECTIONS = (
    *("connection closed", "connection reset", "connection refused", "closed by peer"),
    *("caused pair closure", "broken pipe", "remote process", "timed out", "timeout"),
)
_CALL = timedelta(seconds=5)
"""How long a launcher's store, which is there before the processes are, may take to answer."""
_LAST_CALL = timedelta(seconds=60)
"""How long one that has failed before they met looks for the others, where rank 0 has the store."""

_stores: list[dist.Store] = []


def share(store: dist.Store) -> None:
    """Note failures where all processes of the run see them."""
    _stores[:] = [store]


def _store() -> dist.Store | None:
    """Return where all processes see what one notes, met or not; None where there is no such."""
    if not _stores and (place := placed()):
        if place.launcher == "srun":
            speak_as_torchrun(place)
        held = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        with suppress(RuntimeError, ValueError):
            share(next(iter(dist.rendezvous("env://", timeout=_CALL if held else _LAST_CALL)))[0])
    return _stores[0] if _stores else None


def _first(event: str, store: dist.Store | None) -> bool:
    """Whether no process has noted ``event`` before."""
    if store is not None:
        with suppress(RuntimeError):  # whoever held the store is gone
            return store.add(event, 1) == 1
    place = placed()
    return place is None or place.rank == 0


def fault_of(rank: int) -> str:
    """Return the key under which a process notes what it has found wrong, for those it met."""
    return f"fault/{rank}"


def of_fault(message: str) -> str:
    """Return what this process is to say of its failure; empty: another one has said why it failed.

    Who failed before the processes met lets them know, so that nobody waits for it; who finds none
    of them speaks for itself.
    """
    place, store = placed(), _store()
    if place is not None and store is not None:
        with suppress(RuntimeError):
            store.set(fault_of(place.rank), message)
    if _first("failed", store):
        return f"error: {message}"
    if place is not None and store is None:
        return f"error: process {place.rank} of {place.world_size}: {message}"
    return ""


def is_loss(error: Exception) -> bool:
    """Whether an error says no more than that another process cannot be reached any more."""
    text = str(error).lower()
    theirs = isinstance(error, dist.DistError) or "gloo" in text or "nccl" in text
    return (
        distributed.world_size() > 1 and theirs and any(word in text for word in _ABOUT_CONNECTIONS)
    )


def of_loss(error: Exception) -> str:
    """Return what this process is to say of the loss of another one; empty: nothing.

    Where prod9's own launcher says who ended, one process adds how the others noticed.
    """
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if LAUNCHED in os.environ:
        return f"process {distributed.rank()} noticed: {reason}" if _first("lost", _store()) else ""
    said = _first("failed", _store())
    return f"error: {_GONE.format(reason=reason)}" if said else ""
