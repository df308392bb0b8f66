import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prod9.masking import gamma, mask_tokens
from prod9.registry import SCHEDULES as REGISTERED

SCHEDULES = REGISTERED.names
V = 99


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("schedule", "start", "half", "end"),
    [
        ("cosine", 1.0, math.sqrt(0.5), 0.0),
        ("arccos", 1.0, 2 / 3, 0.0),
        ("linear", 1.0, 0.5, 0.0),
        ("log", 1.0, 1 / 8, 0.0),  # log2(2) / log2(256)
    ],
)
def test_closed_forms(schedule: str, start: float, half: float, end: float) -> None:
    r = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    expected = torch.tensor([start, half, end], dtype=torch.float64)
    torch.testing.assert_close(gamma(schedule, r, 256), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gamma(schedule, r.float(), 256), expected.float(), rtol=0, atol=1e-6)


@given(
    schedule=st.sampled_from(SCHEDULES),
    a=st.floats(0, 1),
    b=st.floats(0, 1),
    count=st.integers(1, 100_000),
)
def test_it_falls_from_one_to_zero(schedule, a, b, count):
    low, high = sorted((a, b))
    early, late = gamma(schedule, torch.tensor([low, high], dtype=torch.float64), count).tolist()
    assert 1 >= early >= late - 1e-15
    assert late >= 0


def test_log_depends_on_the_count() -> None:
    r = torch.tensor([1 / 16])
    assert gamma("log", r, 16).tolist() == [1.0]
    assert gamma("log", r, 256).tolist() == [0.5]
    assert gamma("log", r, 4).tolist() == [1.0]  # clipped
    assert gamma("cosine", r, 16) == gamma("cosine", r, 256)


@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    grid=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 999),
)
def test_so_many_cells_are_masked_and_no_other_changes(shares, grid, seed):
    tokens = torch.randint(V, (len(shares), *grid), generator=seeded(seed))
    before = tokens.clone()
    share = torch.tensor(shares)
    masked = mask_tokens(tokens, share, V, seeded(seed))
    n = math.prod(grid)
    for row, value in enumerate(share):
        # fp32, half to even, as torch rounds
        expected = max(1, int((value * n).round()))
        assert int(masked.mask[row].sum()) == expected
    assert torch.equal(masked.tokens, torch.where(masked.mask, V, tokens))
    assert torch.equal(tokens, before)
    assert torch.equal(masked.tokens == V, masked.mask)


def test_the_least_and_the_most() -> None:
    tokens = torch.zeros(4, 5, 2, dtype=torch.int64)
    share = torch.tensor([0.0, 0.04, 0.26, 1.0])
    counts = mask_tokens(tokens, share, V, seeded(0)).mask.flatten(1).sum(1)
    assert counts.tolist() == [1, 1, 3, 10]


def test_every_cell_is_equally_likely() -> None:
    samples, n, k = 20_000, 12, 5
    tokens = torch.zeros(samples, 3, 4, dtype=torch.int64)
    mask = mask_tokens(tokens, torch.full((samples,), k / n), V, seeded(0)).mask.flatten(1)
    observed = mask.float().mean(0)
    sigma = math.sqrt(k / n * (1 - k / n) / samples)
    assert (observed - k / n).abs().max() < 4 * sigma
    # So is every pair: k (k - 1) / (n (n - 1)).
    together = (mask.float().T @ mask.float() / samples)[~torch.eye(n, dtype=torch.bool)]
    p = k * (k - 1) / (n * (n - 1))
    assert (together - p).abs().max() < 5 * math.sqrt(p * (1 - p) / samples)


def test_samples_are_masked_independently() -> None:
    tokens = torch.zeros(2, 4, 4, 4, dtype=torch.int64)
    mask = mask_tokens(tokens, torch.tensor([0.5, 0.5]), V, seeded(0)).mask
    assert not torch.equal(mask[0], mask[1])


def test_the_generator_decides() -> None:
    tokens, share = torch.zeros(2, 4, 4, dtype=torch.int64), torch.tensor([0.5, 0.2])

    def mask(seed: int, outside: int) -> torch.Tensor:
        torch.manual_seed(outside)
        return mask_tokens(tokens, share, V, seeded(seed)).mask

    assert torch.equal(mask(1, 0), mask(1, 5))
    assert not torch.equal(mask(1, 0), mask(2, 0))
