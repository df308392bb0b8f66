import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from prod9.config import SlidingWindowConfig
from prod9.sliding_window import Windows, axis_shares, blend, replicated_crop, uniform


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_a_window_knows_its_cells() -> None:
    windows = Windows.over([9, 5], [4, 8], 0.0)
    assert windows.starts == ((0, 0), (4, 0), (5, 0))
    assert windows.cells((5, 0)) == (slice(5, 9), slice(0, 5))


@given(
    sides=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    roi=st.integers(1, 9),
    overlap=st.floats(0, 0.9),
    scale=st.integers(1, 4),
    mode=st.sampled_from(["gaussian", "constant"]),
)
def test_the_shares_of_all_windows_sum_to_one(
    sides: Any, roi: Any, overlap: Any, scale: Any, mode: Any
) -> None:
    windows = Windows.over(sides, [roi] * len(sides), overlap)
    for axis, share in enumerate(axis_shares(windows, scale, mode)):
        total = torch.zeros(scale * sides[axis], dtype=torch.float64)
        for start, part in share.items():
            assert part.shape == (scale * windows.roi[axis],)
            assert 0 < float(part.min()) <= float(part.max()) <= 1
            total[scale * start : scale * start + len(part)] += part
        torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
        if len(share) == 1:
            assert total.tolist() == [1.0] * len(total)


def test_shares_by_hand() -> None:
    windows = Windows.over([6], [4], 0.5)  # at 0 and 2, sigma = 4 / 8
    near, far = math.exp(-0.5), math.exp(-4.5)
    (share,) = axis_shares(windows, 1, "gaussian")
    first, second = near / (near + far), far / (near + far)
    assert share[0].tolist() == pytest.approx([1, 1, first, second])
    assert share[2].tolist() == pytest.approx([second, first, 1, 1])
    (share,) = axis_shares(windows, 2, "constant")
    assert share[0].tolist() == [1.0] * 4 + [0.5] * 4
    # A Gaussian's far end counts a thousandth of its middle, not less.
    (share,) = axis_shares(Windows.over([24], [16], 0.5), 1, "gaussian")  # at 0 and 8
    middle = math.exp(-0.5 * (0.5 / 2) ** 2)
    assert float(share[0][15]) == pytest.approx(1e-3 / (1e-3 + middle), rel=1e-4)


@given(sides=st.tuples(*[st.integers(1, 17)] * 3), roi=st.integers(1, 4), stride=st.integers(1, 5))
def test_crops_are_bit_for_bit_those_of_the_padded_volume(
    sides: Any, roi: Any, stride: Any
) -> None:
    volume = random(1, 2, *sides)
    grid = [-(-side // stride) for side in sides]
    before = [(stride * n - side) // 2 for n, side in zip(grid, sides, strict=True)]
    after = [stride * n - s - b for n, s, b in zip(grid, sides, before, strict=True)]
    pads = [p for pair in zip(before[::-1], after[::-1], strict=True) for p in pair]
    padded = F.pad(volume, pads, mode="replicate")
    windows = Windows.over(grid, [roi] * 3, 0.5)
    for start in windows.starts:
        first = [stride * s - b for s, b in zip(start, before, strict=True)]
        crop = replicated_crop(volume, first, [stride * r for r in windows.roi])
        place = (slice(stride * c.start, stride * c.stop) for c in windows.cells(start))
        assert torch.equal(crop, padded[(slice(None), slice(None), *place)])


def test_a_crop_inside_is_no_copy() -> None:
    volume = random(1, 1, 6, 6, 6)
    crop = replicated_crop(volume, (1, 2, 3), (3, 3, 3))
    assert crop.untyped_storage().data_ptr() == volume.untyped_storage().data_ptr()


def test_uniform_windows() -> None:
    assert uniform(torch.full((1, 1, 2, 3, 4), 0.5)) == (0.5,)
    assert uniform(torch.full((1, 2, 3, 4), 7)) == (7,)
    two = torch.stack([torch.zeros(2, 2, 2), torch.ones(2, 2, 2)])[None]
    assert uniform(two) == (0.0, 1.0)
    for place in itertools.product((0, 1), repeat=3):
        odd = torch.zeros(1, 1, 2, 2, 2)
        odd[(0, 0, *place)] = 1e-30
        assert uniform(odd) is None
    assert uniform(torch.full((1, 1, 2, 2, 2), math.nan)) is None


def together(
    windows: Windows,
    outputs: dict[Any, Tensor],
    sides: Any,
    channels: int = 1,
    scale: int = 1,
    **settings: Any,
) -> Tensor:
    """Blend given outputs: a window's content is its number, and that of no other."""
    numbers = {start: number for number, start in enumerate(windows.starts)}

    def cut(start: Any) -> Tensor:
        return torch.tensor([numbers[start], -1]).view(1, 1, 1, 2)

    def network(contents: Tensor) -> Tensor:
        return torch.stack([outputs[windows.starts[n]] for n in contents[:, 0, 0, 0].tolist()])

    config = SlidingWindowConfig(**settings)
    return blend(windows, cut, network, config, channels=channels, sides=sides, scale=scale)[0]


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_blend_is_the_whole_sum_over_the_whole_norm(mode: Any, batch_size: Any) -> None:
    """The same with three-dimensional weights and a volume of their sums, in fp64."""
    windows, scale, sides = Windows.over((5, 4, 7), (3, 4, 2), 0.3), 3, (14, 10, 21)
    shape = [scale * r for r in windows.roi]
    axes = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in shape]
    weight = torch.ones(shape, dtype=torch.float64)
    if mode == "gaussian":
        d, h, w = (
            torch.exp(-0.5 * (8 * a / n) ** 2).clamp_min(1e-3)
            for a, n in zip(axes, shape, strict=True)
        )
        weight = d[:, None, None] * h[:, None] * w
    outputs = {s: random(2, *shape, seed=i) for i, s in enumerate(windows.starts)}
    total = torch.zeros(2, 15, 12, 21, dtype=torch.float64)
    norm = torch.zeros(15, 12, 21, dtype=torch.float64)
    for start, output in outputs.items():
        place = tuple(slice(3 * c.start, 3 * c.stop) for c in windows.cells(start))
        total[(slice(None), *place)] += weight * output
        norm[place] += weight
    expected = (total / norm)[:, 0:14, 1:11]
    ours = together(
        windows, outputs, sides, channels=2, scale=scale, mode=mode, sw_batch_size=batch_size
    )
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=1e-6)


def test_windows_that_disagree_leave_a_ramp_not_a_seam() -> None:
    """Windows of 32 at 0, 16, 32, each a constant: 0, 1, 0."""
    windows = Windows.over([64], [32], 0.5)
    outputs = {(s,): torch.full((1, 32), float(s == 16)) for s in (0, 16, 32)}
    steps = together(windows, outputs, [64], mode="gaussian")[0].diff().abs()
    borders = [16 - 1, 32 - 1, 48 - 1]
    # In the middle between two windows' centres the logit of the share rises by 16 / 4^2 a voxel.
    assert float(steps.max()) == pytest.approx(math.tanh(0.25), rel=0.01)
    # At a border, a thousandth and what it stands beside.
    assert float(steps[borders].max()) < 0.01 * float(steps.max())
    steps = together(windows, outputs, [64], mode="constant")[0].diff().abs()
    assert steps[borders].tolist() == [0.5, 0.0, 0.5]  # which is why it is not the default


def test_windows_of_one_value_run_once_and_the_rest_in_batches() -> None:
    windows = Windows.over([20], [2], 0.0)
    keys = dict(zip(windows.starts, "aa.b.ab..c", strict=True))
    calls: list[str] = []

    def cut(start: Any) -> Tensor:
        other = -1 if keys[start] == "." else ord(keys[start])
        return torch.tensor([ord(keys[start]), other]).view(1, 1, 1, 2)

    def network(contents: Tensor) -> Tensor:
        values = contents[:, 0, 0, :1]
        calls.append("".join(map(chr, values.flatten().tolist())))
        return values[..., None].float().expand(-1, 1, 2)

    config = SlidingWindowConfig(mode="constant", sw_batch_size=3)
    out = blend(windows, cut, network, config, channels=1, sides=[20], scale=1)[0]
    assert calls == ["a", "b", "c", "...", "."]
    assert out[0, ::2].tolist() == [float(ord(key)) for key in "aa.b.ab..c"]
    assert torch.equal(out[0, ::2], out[0, 1::2])
