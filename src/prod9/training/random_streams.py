"""Randomness of a training step that does not depend on what came before."""

import random

import numpy as np
import torch


def _drawn(seed: int, step: int, rank: int) -> int:
    (state,) = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))


def step_stream(
    seed: int, step: int, rank: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator that depends on (seed, step, rank) alone.

    A run that was killed and resumed draws what it would have drawn.
    """
    return torch.Generator(device).manual_seed(_drawn(seed, step, rank))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Make the generators that all share (PyTorch's, NumPy's, Python's) depend on the step alone.

    Dropout draws from them: what it drops need not be saved, and cannot be lost.
    """
    state = _drawn(seed, step, rank)
    torch.manual_seed(state)  # all devices'
    np.random.seed(state % 2**32)  # noqa: NPY002 - libraries draw from it
    random.seed(state)
