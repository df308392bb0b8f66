"""Randomness of a training step that does not depend on what came before."""

import numpy as np
import torch


def step_stream(
    seed: int, step: int, rank: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a generator that depends on (seed, step, rank) alone.

    A run that was killed and resumed draws what it would have drawn.
    """
    (state,) = np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))
