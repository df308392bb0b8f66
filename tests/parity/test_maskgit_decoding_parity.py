"""Our confidence order against MaskGIT's loop (``parallel_decode.py``) written down in numpy.

Both take the same Gumbel noise: categorical draws are argmax(logits + noise), choices of cells
log p + T_c (1 - rho) noise. What is left can only differ in the algorithm.
"""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from prod9.sampling import gumbel, sample

V = 13
GRID = (3, 4, 5)
N = math.prod(GRID)
BATCH = 4


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


SCHEDULE: dict[str, Callable[[float, np.ndarray], np.ndarray]] = {
    "cosine": lambda ratio, total: np.cos(math.pi / 2 * ratio) * np.ones_like(total, float),
    "arccos": lambda ratio, total: np.arccos(ratio) / (math.pi / 2) * np.ones_like(total, float),
    "linear": lambda ratio, total: (1 - ratio) * np.ones_like(total, float),
    "log": lambda ratio, total: -np.log2(ratio) / np.log2(total),
}


class Noise:
    """Gumbel noise, the same sequence for every reader that starts from the same seed."""

    def __init__(self, seed: int) -> None:
        self.stream = torch.Generator().manual_seed(seed)

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        return gumbel(torch.empty(shape), self.stream).numpy()


def maskgit_decode(
    model: Callable[[np.ndarray], np.ndarray],
    inputs: np.ndarray,
    noise: Noise,
    steps: int,
    schedule: str,
    temperature: float,
    choice_temperature: float,
) -> np.ndarray:
    """Decode flat ids (B, N) whose unknown cells hold V."""
    ids = inputs.copy()
    unknown_at_start = (ids == V).sum(-1)
    for step in range(steps):
        logits = model(ids).astype(np.float64) / temperature
        unknown = ids == V
        sampled = np.argmax(logits + noise(logits.shape), -1)
        sampled = np.where(unknown, sampled, ids)
        ratio = (step + 1) / steps
        probability = np.take_along_axis(softmax(logits), sampled[..., None] % V, -1)[..., 0]
        noisy = np.log(probability) + choice_temperature * (1 - ratio) * noise(unknown.shape)
        confidence = np.where(unknown, noisy, np.inf)
        if step == steps - 1:
            return sampled
        mask_len = np.floor(unknown_at_start * SCHEDULE[schedule](ratio, unknown_at_start) + 1e-9)
        mask_len = np.maximum(1, np.minimum(unknown.sum(-1) - 1, mask_len)).astype(int)
        cut_off = np.take_along_axis(np.sort(confidence, -1), mask_len[:, None], -1)
        ids = np.where(confidence < cut_off, V, sampled)
    raise AssertionError("no steps")


def toy_model(ids: np.ndarray) -> np.ndarray:
    """Logits that depend on everything that is revealed so far, and on the cell (so: no ties)."""
    known = np.where(ids == V, 0.0, ids + 1.0)
    context = 3 * np.arange(N) + known @ np.sin(np.outer(np.arange(1, N + 1), np.arange(1, N + 1)))
    codes = np.arange(V)
    return (2 * np.sin(context[..., None] * 0.1 + codes**2)).astype(np.float32)


@pytest.mark.parametrize("choice_temperature", [0.0, 4.5])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 8, 12])
@pytest.mark.parametrize("schedule", SCHEDULE)
def test_the_same_noise_gives_the_same_tokens(
    schedule: str,
    steps: int,
    temperature: float,
    choice_temperature: float,
) -> None:
    random = np.random.default_rng(steps)
    inputs = random.integers(V, size=(BATCH, N))
    inputs[:, random.permutation(N)[: N - 7]] = V  # seven cells are known
    inputs[0] = V
    settings = (steps, schedule, temperature, choice_temperature)
    expected = maskgit_decode(toy_model, inputs, Noise(7), *settings)

    def logits_fn(tokens: Tensor, progress: float) -> Tensor:
        return torch.from_numpy(toy_model(tokens.flatten(1).numpy())).view(*tokens.shape, V)

    drawn = sample(
        logits_fn,
        torch.from_numpy(inputs).view(BATCH, *GRID),
        mask_id=V,
        order="confidence",
        steps=steps,
        schedule=schedule,
        temperature=temperature,
        choice_temperature=choice_temperature,
        generator=Noise(7).stream,
    )
    assert np.array_equal(drawn.flatten(1).numpy(), expected)
    assert (expected < V).all()


def test_the_model_is_not_trivial() -> None:
    # Parity would be worthless if the tokens did not depend on noise, steps and schedule.
    empty = np.full((BATCH, N), V)

    def decode(seed: int, steps: int, schedule: str) -> np.ndarray:
        return maskgit_decode(toy_model, empty, Noise(seed), steps, schedule, 1.0, 4.5)

    base = decode(0, 8, "cosine")
    for other in (decode(1, 8, "cosine"), decode(0, 7, "cosine"), decode(0, 8, "linear")):
        assert (base != other).mean() > 0.3
