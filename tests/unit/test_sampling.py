import itertools
import math
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prod9 import sampling
from prod9.masking import Schedule
from prod9.sampling import Order, draw, halton_cells, sample

V = 11
GRID = (3, 2, 4)
N = math.prod(GRID)
ORDERS, SCHEDULES = get_args(Order), get_args(Schedule)

orders = st.sampled_from(ORDERS)
schedules = st.sampled_from(SCHEDULES)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def answer_of(batch: int, seed: int = 0) -> Tensor:
    return torch.randint(V, (batch, *GRID), generator=seeded(seed))


class Oracle:
    """Knows the answer, and remembers what it was shown."""

    def __init__(self, answer: Tensor, columns: int = V) -> None:
        self.logits = torch.full((*answer.shape, columns), -1e4)
        self.logits.scatter_(-1, answer[..., None], 1e4)
        self.seen: list[Tensor] = []
        self.progress: list[float] = []

    def __call__(self, tokens: Tensor, progress: float) -> Tensor:
        self.seen.append(tokens.clone())
        self.progress.append(progress)
        return self.logits

    def unknown(self) -> list[list[int]]:
        """Return the number of masked cells per sample at each step."""
        return [(tokens == V).flatten(1).sum(1).tolist() for tokens in self.seen]


def run(logits_fn: Any, initial: Tensor, seed: int = 0, **settings: Any) -> Tensor:
    defaults = {"mask_id": V, "order": "confidence", "steps": 6, "schedule": "cosine"}
    return sample(logits_fn, initial, generator=seeded(seed), **(defaults | settings))


@pytest.mark.parametrize("steps", [1, 2, 5, N, 3 * N])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("order", ORDERS)
def test_an_oracle_gets_its_answer_back(order: Any, schedule: Any, steps: int) -> None:
    answer = answer_of(3)
    oracle = Oracle(answer)
    empty = torch.full_like(answer, V)
    drawn = run(oracle, empty, order=order, schedule=schedule, steps=steps)
    assert torch.equal(drawn, answer)
    assert bool((empty == V).all())  # the caller's tensor is left alone
    assert len(oracle.seen) <= min(steps, N)
    if schedule != "log":  # log reveals several at first even where there are steps enough
        assert len(oracle.seen) == min(steps, N)
    assert oracle.progress == [step / steps for step in range(len(oracle.seen))]


@given(
    order=orders,
    schedule=schedules,
    steps=st.integers(1, 2 * N),
    shares=st.lists(st.sampled_from([0.0, 0.02, 0.3, 0.7, 1.0]), min_size=1, max_size=4),
    seed=st.integers(0, 2**20),
)
def test_known_cells_never_change(order, schedule, steps, shares, seed):
    stream = seeded(seed)
    known = torch.randint(V, (len(shares), *GRID), generator=stream)
    masked = torch.rand(known.shape, generator=stream) < torch.tensor(shares).view(-1, 1, 1, 1)
    initial = known.masked_fill(masked, V)
    oracle = Oracle((known + 1) % V)  # would change every cell
    drawn = run(oracle, initial, seed, order=order, schedule=schedule, steps=steps)
    assert torch.equal(drawn, torch.where(masked, (known + 1) % V, known))
    for before, after in itertools.pairwise([*oracle.seen, drawn]):
        unknown = before == V
        assert torch.equal(before[~unknown], after[~unknown])  # what is revealed stays
        remaining, revealed = unknown.flatten(1).sum(1), (unknown & (after != V)).flatten(1).sum(1)
        assert bool((revealed[remaining > 0] >= 1).all())


def exact_gamma(schedule: str, rho: float, count: int) -> float:
    return {
        "cosine": math.cos(math.pi / 2 * rho),
        "arccos": 2 / math.pi * math.acos(rho),
        "linear": 1 - rho,
        "log": -math.log(rho) / math.log(max(count, 2)),
    }[schedule]


def counts_of(order: str, schedule: str, steps: int, total: int) -> list[int]:
    """Return the masked cells that each step is shown, from the formulas of algorithms.md."""
    left, shown = total, []
    for t in range(steps):
        shown.append(left)
        # A hair more or less, so that (1 - 0.7) * 20 counts as the 6 that it is.
        share = exact_gamma(schedule, (t + 1) / steps, total) * total
        if order == "confidence":
            left = max(1, min(left - 1, math.floor(share + 1e-9)))
        else:
            left = total - max(total - left + 1, math.floor(total - share + 1e-9))
            left = max(1, left)
        if left == 1 and shown[-1] == 1:
            break
    return shown


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 12, 20, N - 1, N, 40])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("order", ORDERS)
def test_reveal_counts_follow_the_formulas(order: Any, schedule: Any, steps: int) -> None:
    oracle = Oracle(answer_of(2))
    run(oracle, torch.full((2, *GRID), V), order=order, schedule=schedule, steps=steps)
    expected = counts_of(order, schedule, steps, N)
    assert oracle.unknown() == [[count, count] for count in expected]


def test_maskgits_published_counts() -> None:
    # 256 tokens in 8 steps, cosine: floor(256 cos(pi t / 16)) remain after step t.
    oracle = Oracle(torch.zeros(1, 256, dtype=torch.int64))
    run(oracle, torch.full((1, 256), V), steps=8)
    assert [row[0] for row in oracle.unknown()] == [256, 251, 236, 212, 181, 142, 97, 49]


def test_haltons_count_is_the_papers() -> None:
    # Besnier et al. 2025: max(t + 1, floor(N (1 - 2 acos(rho) / pi))) cells are known after step t.
    n, steps = 4096, 32
    oracle = Oracle(torch.zeros(1, 16, 16, 16, dtype=torch.int64))
    run(
        oracle,
        torch.full((1, 16, 16, 16), V),
        order="halton",
        schedule="arccos",
        steps=steps,
    )
    known = [n - row[0] for row in oracle.unknown()]
    share = [1 - 2 / math.pi * math.acos((t + 1) / steps) for t in range(steps - 1)]
    assert known == [0, *(max(t + 1, math.floor(n * s + 1e-9)) for t, s in enumerate(share))]


def test_each_sample_has_its_own_count() -> None:
    unknown = [N, 10, 3, 1, 0]
    initial = torch.zeros(5, N, dtype=torch.int64)
    for row, count in enumerate(unknown):
        initial[row, :count] = V
    initial = initial.view(5, *GRID)
    for order in ORDERS:
        oracle = Oracle(torch.ones_like(initial))
        drawn = run(oracle, initial, order=order, schedule="cosine", steps=6)
        for row, count in enumerate(unknown):
            expected = counts_of(order, "cosine", 6, count) if count else []
            shown = [step[row] for step in oracle.unknown()]
            assert shown == expected + [0] * (len(shown) - len(expected))
        assert torch.equal(drawn, torch.where(initial == V, 1, initial))


@pytest.mark.parametrize("order", ORDERS)
def test_the_mask_is_never_drawn(order: Any) -> None:
    logits = torch.zeros(2, *GRID, V + 1)
    logits[..., V] = 1e4
    drawn = run(lambda tokens, progress: logits, torch.full((2, *GRID), V), order=order)
    assert int(drawn.max()) < V
    assert len(drawn.unique()) > 3


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5])
    count = 40_000
    drawn, log_p = draw(logits.expand(1, count, 5), temperature, seeded(0))
    expected = torch.softmax(logits / temperature, 0)
    observed = torch.bincount(drawn[0], minlength=5) / count
    chi_square = float((count * (observed - expected).square() / expected).sum())
    assert chi_square < 18.5  # 4 degrees of freedom: 0.1 % of honest draws exceed it
    torch.testing.assert_close(log_p, expected.log()[drawn])


@pytest.mark.parametrize("order", ORDERS)
def test_temperature_reaches_the_draws(order: Any) -> None:
    logits = torch.zeros(64, *GRID, V)
    logits[..., 3] = 2.0
    empty = torch.full((64, *GRID), V)
    for temperature in (0.5, 2.0):
        drawn = run(lambda t, p: logits, empty, order=order, steps=4, temperature=temperature)
        p = float(torch.softmax(logits[0, 0, 0, 0] / temperature, 0)[3])
        share = float((drawn == 3).float().mean())
        # Four sigma. (The confidence order prefers what is likely, but here redraws at each step.)
        if order == "halton":
            assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / drawn.numel())
        else:
            assert share > p - 0.02


@pytest.mark.parametrize("order", ORDERS)
def test_seeds(order: Any) -> None:
    logits = torch.randn(2, *GRID, V, generator=seeded(5))
    empty = torch.full((2, *GRID), V)

    def drawn(seed: int) -> Tensor:
        return run(lambda t, p: logits, empty, seed, order=order)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1), logits.argmax(-1))  # more than the likeliest of each cell
    assert not torch.equal(drawn(1)[0], drawn(1)[1])


def test_low_temperature_is_the_likeliest_token() -> None:
    logits = torch.randn(2, *GRID, V, generator=seeded(5))
    drawn = run(lambda t, p: logits, torch.full((2, *GRID), V), temperature=1e-3)
    assert torch.equal(drawn, logits.argmax(-1))


def test_without_noise_the_most_confident_cells_come_first() -> None:
    answer = answer_of(1)
    strength = torch.randperm(N, generator=seeded(3)).float().view(1, *GRID)
    oracle = Oracle(answer)
    # p(answer) grows with the strength and is high enough for it to be drawn everywhere.
    oracle.logits = torch.nn.functional.one_hot(answer, V).float() * (30 + strength[..., None])
    run(oracle, torch.full_like(answer, V), steps=N, schedule="linear", choice_temperature=0.0)
    # log p saturates in fp32 near 0, so compare what log-softmax makes of the strengths.
    log_p = torch.log_softmax(oracle.logits, -1).amax(-1).flatten()
    revealed = [int((a != b).flatten().nonzero()[0]) for a, b in itertools.pairwise(oracle.seen)]
    values = [float(log_p[cell]) for cell in revealed]
    assert values == sorted(values, reverse=True)
    assert len(set(revealed)) == N - 1


def test_choice_noise_is_annealed(monkeypatch: pytest.MonkeyPatch) -> None:
    # With all logits equal, confidence is the noise alone: times T_c (1 - rho), 0 at the end.
    calls: list[tuple[int, ...]] = []
    real = sampling._gumbel

    def spy(like: Tensor, generator: Any) -> Tensor:
        calls.append(tuple(like.shape))
        return real(like, generator)

    monkeypatch.setattr(sampling, "_gumbel", spy)
    run(Oracle(answer_of(1)), torch.full((1, *GRID), V), order="halton", steps=3)
    assert calls == [(1, N, V)] * 3  # no noise on confidences in the Halton order
    calls.clear()
    run(Oracle(answer_of(1)), torch.full((1, *GRID), V), steps=3)
    assert calls == [(1, N, V), (1, N)] * 3


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        run(Oracle(answer_of(1)), answer_of(1), steps=0)


# --- the Halton order ---------------------------------------------------------------------------


def radical_inverse(n: int, base: int) -> Fraction:
    value, place = Fraction(0), Fraction(1, base)
    while n:
        n, digit = divmod(n, base)
        value, place = value + digit * place, place / base
    return value


def slow_halton(grid: tuple[int, ...]) -> tuple[list[int], int]:
    """Return the cells in order of first hit, and the points it took."""
    order: list[int] = []
    seen: set[int] = set()
    n = 0
    while len(order) < math.prod(grid):
        n += 1
        cell = 0
        for side, base in zip(grid, (2, 3, 5), strict=False):
            cell = cell * side + math.floor(radical_inverse(n, base) * side)
        if cell not in seen:
            seen.add(cell)
            order.append(cell)
    return order, n


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 3, 5), (4, 4, 4), (7, 7, 7), (5, 1, 6), (6, 9)])
def test_halton_order_is_that_of_a_plain_loop(grid: tuple[int, ...]) -> None:
    assert halton_cells(grid).tolist() == slow_halton(grid)[0]


def first_hits(side: int, points: int) -> np.ndarray:
    """Return the first point (from 1) in each cell, by digits rather than by fractions."""
    cells = np.zeros(points, np.int64)
    for base in (2, 3, 5):
        digits = math.ceil(math.log(points + 1, base))
        rest, numerator = np.arange(1, points + 1), np.zeros(points, np.int64)
        for _ in range(digits):
            numerator, rest = numerator * base + rest % base, rest // base
        cells = cells * side + numerator * side // base**digits
    hit, first = np.unique(cells, return_index=True)
    assert len(hit) == side**3
    return first + 1


# One less than the points that are needed: these count the sequence's origin, which is not drawn.
@pytest.mark.parametrize(("side", "points"), [(16, 15_357 - 1), (32, 143_246 - 1)])
def test_points_that_cover_a_grid(side: int, points: int) -> None:
    first = first_hits(side, points)
    assert first.max() == points
    assert np.array_equal(halton_cells((side,) * 3).numpy(), np.argsort(first, kind="stable"))


def test_first_cells_are_spread() -> None:
    # Any 30 points in a row meet each of 2 x 3 x 5 boxes once: so do the first 30 distinct cells
    # of a fine grid.
    grid = (32, 33, 35)
    cells = np.stack(np.unravel_index(halton_cells(grid)[:30].numpy(), grid), 1)
    boxes = {
        tuple(int(c * parts // side) for c, parts, side in zip(cell, (2, 3, 5), grid, strict=True))
        for cell in cells
    }
    assert len(boxes) == 30


def test_samples_are_revealed_in_rolled_halton_order() -> None:
    order = halton_cells(GRID).tolist()
    oracle = Oracle(answer_of(6))
    run(oracle, torch.full((6, *GRID), V), order="halton", schedule="linear", steps=N)
    starts = set()
    for sample_index in range(6):
        seen = [tokens[sample_index].flatten() for tokens in oracle.seen]
        revealed = [int((a != b).nonzero()[0]) for a, b in itertools.pairwise(seen)]
        start = order.index(revealed[0])
        starts.add(start)
        assert revealed == (order[start:] + order[:start])[: N - 1]
    assert len(starts) > 1


def test_known_cells_are_skipped_in_the_halton_order() -> None:
    order = halton_cells(GRID).tolist()
    initial = torch.zeros(1, *GRID, dtype=torch.int64)
    unknown = [0, 3, 7, 8, 20, 23]
    initial.view(1, -1)[0, unknown] = V
    oracle = Oracle(torch.ones_like(initial))
    run(oracle, initial, order="halton", schedule="linear", steps=6)
    seen = [tokens.flatten() for tokens in oracle.seen]
    revealed = [int((a != b).nonzero()[0]) for a, b in itertools.pairwise(seen)]
    remaining = [cell for cell in order if cell in unknown]
    start = remaining.index(revealed[0])
    assert revealed == (remaining[start:] + remaining[:start])[:5]


def test_a_fourth_axis_has_no_base() -> None:
    with pytest.raises(ValueError, match="3 axes, the grid has 4"):
        halton_cells((2, 2, 2, 2))
