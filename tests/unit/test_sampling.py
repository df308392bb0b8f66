import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prod9 import registry
from prod9.sampling import draw, sample

V = 11
GRID = (3, 2, 4)
N = math.prod(GRID)
ORDERS, SCHEDULES = registry.ORDERS.names, registry.SCHEDULES.names

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


def test_the_final_temperature_is_that_of_the_last_step_linearly_reached() -> None:
    logits = torch.zeros(400, *GRID, V)
    logits[..., 3] = 2.0
    states: list[Tensor] = []

    def seen(tokens: Tensor, progress: float) -> Tensor:
        states.append(tokens.clone())
        return logits

    empty = torch.full((400, *GRID), V)
    end = run(seen, empty, order="halton", steps=3, temperature=2.0, final_temperature=0.5)
    for (before, after), temperature in zip(
        itertools.pairwise([*states, end]), (2.0, 1.25, 0.5), strict=True
    ):
        new = after[(before == V) & (after != V)]
        p = float(torch.softmax(logits[0, 0, 0, 0] / temperature, 0)[3])
        share = float((new == 3).float().mean())
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / len(new)), temperature


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


def test_choice_noise_moves_the_confidence_order_alone() -> None:
    logits = torch.randn(2, *GRID, V, generator=seeded(5))
    empty = torch.full((2, *GRID), V)

    def drawn(order: str, noise: float) -> Tensor:
        return run(lambda t, p: logits, empty, order=order, choice_temperature=noise)

    assert torch.equal(drawn("halton", 0.0), drawn("halton", 4.5))
    assert not torch.equal(drawn("confidence", 0.0), drawn("confidence", 4.5))


@pytest.mark.parametrize("order", ORDERS)
def test_every_code_is_sampled_at_uniform_logits(order: str) -> None:
    # One pass over 4,800 cells: each of the 11 codes is expected 436 times.
    empty = torch.full((200, *GRID), V)
    drawn = run(lambda t, p: torch.zeros(*t.shape, V), empty, order=order, steps=1)
    counts = torch.bincount(drawn.flatten(), minlength=V).double()
    expected = drawn.numel() / V
    assert float((counts - expected).square().sum() / expected) < 29.6  # 10 degrees: 0.1 %


@pytest.mark.parametrize("order", ORDERS)
def test_a_peaked_distribution_is_sampled_at_its_own_rate(order: str) -> None:
    # One code has probability 0.85. In a single pass the order has no choice to make.
    logits = torch.full((V,), math.log(0.15 / (V - 1)))
    logits[4] = math.log(0.85)
    empty = torch.full((400, *GRID), V)
    drawn = run(lambda t, p: logits.expand(*t.shape, V), empty, order=order, steps=1)
    share, sigma = float((drawn == 4).double().mean()), math.sqrt(0.85 * 0.15 / drawn.numel())
    assert abs(share - 0.85) < 4 * sigma


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        run(Oracle(answer_of(1)), answer_of(1), steps=0)


def test_a_revision_draws_again_what_did_not_see_each_other() -> None:
    # Two cells, alike in all data: a cell is what the other is, or anything where that is masked.
    def alike(tokens: Tensor, progress: float) -> Tensor:
        other = tokens.flip(-1)
        logits = torch.zeros(*tokens.shape, 2)
        known = other < 2
        logits[known] = torch.nn.functional.one_hot(other[known], 2) * 50.0
        return logits

    count = 20_000
    empty = torch.full((count, 1, 1, 2), 2)
    expected = 0.5  # one step draws both cells apart
    for revisions in range(3):
        pairs = sample(
            alike,
            empty,
            mask_id=2,
            order="halton",
            steps=1,
            schedule="cosine",
            revisions=revisions,
            revised_share=0.4,
            generator=seeded(revisions),
        ).view(count, 2)
        share = float((pairs[:, 0] == pairs[:, 1]).float().mean())
        assert abs(share - expected) < 4 * math.sqrt(0.25 / count), revisions
        # One of them is redrawn: alike. Both: as at first. None: as before.
        expected = 2 * 0.4 * 0.6 + 0.4**2 * 0.5 + 0.6**2 * expected


@given(orders, st.integers(1, 4))
def test_revisions_neither_change_nor_hide_what_was_known(order: Any, revisions: int) -> None:
    answer = answer_of(3)
    known = torch.rand(answer.shape, generator=seeded(1)) < 0.5
    wrong = (answer + 1) % V
    oracle = Oracle(answer)
    initial = torch.where(known, wrong, V)
    settings = {"order": order, "steps": 2, "revisions": revisions, "revised_share": 0.5}
    assert torch.equal(run(oracle, initial, **settings), torch.where(known, wrong, answer))
    assert len(oracle.seen) == 2 + revisions
    assert oracle.progress[2:] == [1.0] * revisions
    for seen in oracle.seen:
        assert torch.equal(seen[known], wrong[known])
    assert any((seen == V).any() for seen in oracle.seen[2:])


def test_a_temperature_falls_over_steps_and_revisions() -> None:
    logits = torch.zeros(400, *GRID, V)
    logits[..., 3] = 2.0
    settings = {"steps": 1, "temperature": 2.0, "final_temperature": 0.5, "revised_share": 1.0}
    for revisions, temperature in ((0, 2.0), (1, 0.5), (3, 0.5)):
        empty = torch.full((400, *GRID), V)
        drawn = run(lambda t, p: logits, empty, revisions=revisions, **settings)
        p = float(torch.softmax(logits[0, 0, 0, 0] / temperature, 0)[3])
        share = float((drawn == 3).float().mean())
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / drawn.numel()), revisions
