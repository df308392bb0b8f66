import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prod9 import outpainting
from prod9.config import SamplerConfig
from prod9.guidance import guided
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.outpainting import centred, draw_tokens, from_the_middle
from prod9.sampling import sample
from prod9.sliding_window import Windows

V = 30
grids = st.tuples(*[st.integers(1, 7)] * 3)
roomy_windows = st.tuples(*[st.integers(2, 5)] * 3)
orders = st.sampled_from(["confidence", "halton"])


def answer(cells: Tensor, labels: Tensor) -> Tensor:
    """Return what belongs into cells (B, d, h, w, 3) of the whole grid, for each class."""
    mixed = (cells.long() * torch.tensor([7, 11, 13])).sum(-1)
    return (mixed + 17 * labels.view(-1, 1, 1, 1)) % V


def cells_of(shape: Sequence[int]) -> Tensor:
    """Return the coordinates of a grid's cells, (d, h, w, 3)."""
    return torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), -1)


class Oracle(MaskedTransformer):
    """Knows what belongs into each cell, by the place that the condition tells it, and no more."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.mask_id, self.head = V, torch.nn.Identity()
        self.windows: list[list[tuple[Tensor, Condition]]] = [[]]
        """What each window's passes were asked."""

    def features(self, tokens: Tensor, condition: Condition) -> Tensor:
        self.windows[-1].append((tokens.clone(), condition))
        origin = condition.origin
        if origin is None:  # the whole training grid
            origin = torch.zeros(len(tokens), 3)
        cells = origin.view(-1, 1, 1, 1, 3) + cells_of(tokens.shape[1:])
        right = answer(cells, condition.classes)
        return 1e4 * torch.nn.functional.one_hot(right, V).float()

    def next_window(self, done: int, total: int) -> None:
        """Count a window as done."""
        assert done == len(self.windows) <= total
        self.windows.append([])

    @property
    def first_passes(self) -> list[tuple[Tensor, Condition]]:
        """What each window began with; windows that were known already have none."""
        return [window[0] for window in self.windows if window]


def condition(count: int = 2, **change: Any) -> Condition:
    return Condition.of(torch.arange(count) % 2, 1, **change)


def empty(*grid: int, count: int = 2) -> Tensor:
    return torch.full((count, *grid), V)


def settings_of(**change: Any) -> SamplerConfig:
    return SamplerConfig(**({"steps": 4, "guidance_scale": 1.0} | change))


def fill(initial: Tensor, window: Sequence[int], **change: Any) -> tuple[Tensor, Oracle]:
    """Let an oracle fill the grid; return the tokens and the oracle, which remembers."""
    oracle, stream = Oracle(), torch.Generator().manual_seed(change.pop("seed", 0))
    told = change.pop("condition", condition(len(initial)))
    overlap = change.pop("overlap", 0.5)
    tokens = draw_tokens(
        oracle,
        told,
        initial,
        settings_of(**change),
        stream,
        window=window,
        overlap=overlap,
        on_window=oracle.next_window,
    )
    return tokens, oracle


def expected(shape: Sequence[int], count: int = 2) -> Tensor:
    cells = cells_of(shape)[None].expand(count, -1, -1, -1, -1)
    return answer(cells, torch.arange(count) % 2)


@given(
    grid=grids,
    window=st.tuples(*[st.integers(1, 9)] * 3),
    order=orders,
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    steps=st.integers(1, 6),
)
@settings(max_examples=20)
def test_who_knows_the_answer_gets_it_back(grid, window, order, overlap, steps):
    tokens, oracle = fill(empty(*grid), window, order=order, overlap=overlap, steps=steps)
    assert torch.equal(tokens, expected(grid))
    # No window is larger than the training's, nor larger than the grid.
    sides = tuple(min(w, g) for w, g in zip(window, grid, strict=True))
    assert all(seen.shape[1:] == sides for seen, _ in oracle.first_passes)


@given(grid=grids, window=roomy_windows, order=orders, seed=st.integers(0, 99))
@settings(max_examples=20)
def test_known_tokens_never_change(grid, window, order, seed):
    stream = torch.Generator().manual_seed(seed)
    known = torch.rand(2, *grid, generator=stream) < torch.rand(2, 1, 1, 1, generator=stream)
    # Wrong ones: an oracle would never draw them.
    initial = torch.where(known, (expected(grid) + 1) % V, V)
    before = initial.clone()
    tokens, _ = fill(initial, window, order=order, seed=seed)
    assert torch.equal(tokens, torch.where(known, before, expected(grid)))
    assert torch.equal(initial, before)


@given(grid=grids, window=roomy_windows, overlap=st.floats(0.05, 0.95))
@settings(max_examples=20)
def test_each_later_window_goes_on_from_what_is_there(grid, window, overlap):
    _, oracle = fill(empty(*grid), window, overlap=overlap, steps=1)
    (first, _), *later = oracle.first_passes
    assert bool((first == V).all())
    for seen, told in later:
        assert told.origin is not None
        known = seen != V
        assert bool(known.flatten(1).any(1).all())
        cells = told.origin.view(-1, 1, 1, 1, 3) + cells_of(seen.shape[1:])
        assert torch.equal(seen[known], answer(cells, told.classes)[known])


@given(grid=grids, window=roomy_windows, overlap=st.sampled_from([0.0, 0.3, 0.5]))
@settings(max_examples=20)
def test_windows_come_from_the_middle_outwards(grid, window, overlap):
    windows = Windows.over(grid, window, overlap)
    cells = from_the_middle(windows)
    assert sorted(tuple(c.start for c in cell) for cell in cells) == sorted(windows.starts)
    away = [
        sum((c.start + c.stop - side) ** 2 for c, side in zip(cell, grid, strict=True))
        for cell in cells
    ]
    assert away == sorted(away)


def test_the_order_of_five_cells_in_windows_of_three() -> None:
    cells = from_the_middle(Windows.over((5, 1, 1), (3, 1, 1), 0.5))
    assert [cell[0] for cell in cells] == [slice(1, 4), slice(0, 3), slice(2, 5)]
    assert all(cell[1:] == (slice(0, 1), slice(0, 1)) for cell in cells)
    _, oracle = fill(empty(5, 1, 1), (3, 1, 1))
    origins = [c.origin.tolist() for _, c in oracle.first_passes if c.origin is not None]
    assert origins == [[[1, 0, 0]] * 2, [[0, 0, 0]] * 2, [[2, 0, 0]] * 2]
    # The second and third begin with two of their three cells known.
    unknown = [(seen == V)[0, :, 0, 0].tolist() for seen, _ in oracle.first_passes]
    assert unknown == [[True] * 3, [True, False, False], [False, False, True]]


def steps_of(
    initial: Tensor, window: Sequence[int], monkeypatch: pytest.MonkeyPatch, **change: Any
) -> list[int]:
    steps: list[int] = []

    def watched(*args: Any, **settings: Any) -> Tensor:
        steps.append(settings["steps"])
        return sample(*args, **settings)

    monkeypatch.setattr(outpainting, "sample", watched)
    fill(initial, window, **change)
    return steps


def test_steps_are_the_unknown_share_of_those_of_an_empty_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Windows of 4 along 6 cells: the second begins half known.
    assert steps_of(empty(6, 4, 4), (4, 4, 4), monkeypatch, steps=12) == [12, 6]
    assert steps_of(empty(5, 4, 4), (4, 4, 4), monkeypatch, steps=12) == [12, 3]
    assert steps_of(empty(6, 4, 4), (4, 4, 4), monkeypatch, steps=12, overlap=0.0) == [12, 6]
    # One cell of 64 is one step. With samples that differ, the emptiest decides.
    one = expected((4, 4, 4))
    one[0, 1, 2, 3] = V
    assert steps_of(one, (4, 4, 4), monkeypatch, steps=12) == [1]
    one[1, :2] = V
    assert steps_of(one, (4, 4, 4), monkeypatch, steps=12) == [6]
    # Nothing to do: nobody is asked.
    assert steps_of(expected((6, 4, 4)), (4, 4, 4), monkeypatch) == []


def test_every_window_is_told_even_those_that_are_known() -> None:
    progress: list[tuple[int, int]] = []
    initial = expected((6, 4, 4))
    draw_tokens(
        Oracle(),
        condition(),
        initial,
        settings_of(),
        torch.Generator(),
        window=(4, 4, 4),
        on_window=lambda done, total: progress.append((done, total)),
    )
    assert progress == [(1, 2), (2, 2)]


def test_the_place_of_the_whole_grid_is_added() -> None:
    # A grid whose first cell is (3, 1, 2) of the training's.
    origin = torch.tensor([[3.0, 1.0, 2.0]]).expand(2, 3)
    tokens, _ = fill(empty(5, 6, 4), (3, 4, 4), condition=condition(origin=origin))
    assert torch.equal(tokens, expected((8, 7, 6))[:, 3:, 1:, 2:])


def test_each_window_sees_its_own_part_of_the_sources() -> None:
    sources = expected((6, 5, 4))[:, None].expand(2, 3, 6, 5, 4) + torch.arange(3).view(3, 1, 1, 1)
    _, oracle = fill(empty(6, 5, 4), (4, 4, 4), condition=condition(sources=sources))
    assert len(oracle.first_passes) == 4
    for _, told in oracle.first_passes:
        assert told.origin is not None
        assert told.sources is not None
        d, h, w = told.origin[0].int().tolist()
        assert torch.equal(told.sources, sources[:, :, d : d + 4, h : h + 4, w : w + 4])


def test_guidance_asks_for_class_and_null_class_of_the_same_window() -> None:
    sources = torch.zeros(2, 3, 6, 4, 4, dtype=torch.int64)
    change = {"guidance_scale": 3.0, "guidance_schedule": "constant"}
    told = condition(sources=sources)
    tokens, oracle = fill(empty(6, 4, 4), (4, 4, 4), condition=told, **change)
    assert torch.equal(tokens, expected((6, 4, 4)))
    for seen, both in oracle.first_passes:
        assert both.classes.tolist() == [0, 1, -1, -1]
        assert both.origin is not None
        assert both.sources is not None
        assert torch.equal(both.origin[:2], both.origin[2:])
        assert torch.equal(seen[:2], seen[2:])
        assert both.sources.flatten(1).unique(dim=1)[:, 0].tolist() == [0, 0, V, V]


@pytest.mark.parametrize("order", ["confidence", "halton"])
def test_one_window_that_covers_all_is_the_sampler_itself(
    make_transformer: Any, order: Any
) -> None:
    network = make_transformer(grid=(3, 4, 2))
    config = settings_of(order=order, guidance_scale=2.0, temperature=0.8, scheduler_type="arccos")
    initial = torch.full((2, 3, 4, 2), 60)
    initial[:, 0, 0] = 7
    drawn = draw_tokens(
        network,
        Condition.of(torch.tensor([0, 1]), 1),
        initial,
        config,
        torch.Generator().manual_seed(3),
        window=(4, 4, 4),
    )
    at_zero = Condition.of(torch.tensor([0, 1]), 1, origin=torch.zeros(2, 3))
    direct = sample(
        guided(network, at_zero, 2.0, config.guidance_schedule, config.guidance_every),
        initial,
        mask_id=60,
        order=order,
        steps=math.ceil(4 * 22 / 24),
        schedule="arccos",
        temperature=0.8,
        choice_temperature=config.choice_temperature,
        generator=torch.Generator().manual_seed(3),
    )
    assert torch.equal(drawn, direct)


@pytest.mark.parametrize("order", ["confidence", "halton"])
def test_tokens_come_from_the_stream_alone(make_transformer: Any, order: Any) -> None:
    network = make_transformer(grid=(5, 3, 2))

    def drawn(seed: int, outside: int = 0) -> Tensor:
        torch.manual_seed(outside)
        stream = torch.Generator().manual_seed(seed)
        blank = torch.full((2, 5, 3, 2), 60)
        told = Condition.of(torch.tensor([0, 1]), 1)
        config = settings_of(order=order, steps=2)
        return draw_tokens(network, told, blank, config, stream, window=(4, 3, 2))

    tokens, other = drawn(1), drawn(2)
    assert torch.equal(tokens, drawn(1, outside=5))
    for label in range(2):
        assert float((tokens[label] == other[label]).float().mean()) < 0.5


def test_the_middle_of_a_grid_is_the_middle_of_the_training_grid() -> None:
    assert centred((4, 4, 4), (4, 4, 4), 2).tolist() == [[0, 0, 0]] * 2
    assert centred((3, 8, 4), (8, 4, 5), 1).tolist() == [[2.5, -2, 0.5]]
