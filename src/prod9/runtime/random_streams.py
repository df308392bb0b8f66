"""Random numbers of a training step that depend on (seed, step, rank) alone.

A resumed run draws what it would have drawn without the interruption.
"""

import random

import numpy as np
import torch


def _state(seed: int, step: int, rank: int) -> int:
    (state,) = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    return int(state >> np.uint64(1))


def step_stream(
    seed: int, step: int, rank: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator of the step."""
    return torch.Generator(device).manual_seed(_state(seed, step, rank))


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed the global generators of PyTorch (which dropout uses), NumPy and Python."""
    state = _state(seed, step, rank)
    torch.manual_seed(state)  # on all devices
    np.random.seed(state % 2**32)  # noqa: NPY002 - libraries draw from it
    random.seed(state)
