import itertools
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prod9.config import SlidingWindowConfig
from prod9.sliding_window import Windows, axis_shares, decode, encode, encode_latent
from prod9.tokenizer import Tokenizer


def config(*roi: int, **change: Any) -> SlidingWindowConfig:
    return SlidingWindowConfig(roi_size=roi, **change)


def volume(*sides: int) -> Tensor:
    return torch.rand(1, 1, *sides, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: Any) -> Tokenizer:
    return make_tokenizer(num_channels=(8, 8, 8))  # stride 4


class SubVoxels(nn.Module):
    """Each cell of the grid becomes 4^3 voxels by itself alone."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(3, 1, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x) + 0.5


@pytest.fixture
def local(make_tokenizer: Any) -> Tokenizer:
    """Return a tokenizer whose networks look at one cell at a time."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(num_channels=(8, 8, 8))
    tokenizer.autoencoder.encoder = nn.Conv3d(1, 3, 4, stride=4)
    nn.init.normal_(tokenizer.autoencoder.encoder.weight)
    tokenizer.autoencoder.decoder = nn.Identity()
    tokenizer.autoencoder.last = SubVoxels()
    return tokenizer


@given(
    sides=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    roi=st.integers(1, 12),
    overlap=st.floats(0, 0.95),
)
def test_windows_cover_everything(sides, roi, overlap):
    rois = [roi + i for i in range(len(sides))]
    windows = Windows.over(sides, rois, overlap)
    seen = torch.zeros(sides)
    for start in windows.starts:
        stop = [s + r for s, r in zip(start, windows.roi, strict=True)]
        assert all(b <= side for b, side in zip(stop, sides, strict=True))
        assert min(start) >= 0
        seen[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] += 1
    assert seen.min() >= 1
    assert len(set(windows.starts)) == len(windows.starts)
    for axis, r in enumerate(windows.roi):
        starts = sorted({start[axis] for start in windows.starts})
        for a, b in itertools.pairwise(starts):
            assert r - (b - a) >= min(r - 1, overlap * r - 1e-9)


def test_known_windows() -> None:
    assert Windows.over([10], [4], 0.5).starts == ((0,), (2,), (4,), (6,))
    assert Windows.over([9], [4], 0.0).starts == ((0,), (4,), (5,))
    assert Windows.over([3, 8], [8, 4], 0.0) == Windows((3, 8), (3, 4), ((0, 0), (0, 4)))


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("sides", [(16, 16, 16), (13, 16, 9), (1, 5, 28)])
def test_one_window_is_the_whole_volume(tokenizer: Tokenizer, sides: Any, mode: Any) -> None:
    x = volume(*sides)
    settings = config(32, 32, 32, mode=mode)
    latent = encode_latent(tokenizer, x, settings)
    torch.testing.assert_close(latent, tokenizer.autoencoder.encode(x), rtol=1e-5, atol=1e-6)
    tokens = encode(tokenizer, x, settings)
    assert torch.equal(tokens, tokenizer.encode(x))
    ours, whole = decode(tokenizer, tokens, sides, settings), tokenizer.decode(tokens, sides)
    torch.testing.assert_close(ours, whole, rtol=1e-5, atol=1e-6)
    if mode == "constant":  # not even rounding differs
        assert torch.equal(latent, tokenizer.autoencoder.encode(x))
        assert torch.equal(ours, whole)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize(
    ("sides", "roi"),
    [
        ((20, 24, 16), (8, 12, 16)),
        ((21, 9, 30), (12, 8, 8)),
        ((17, 1, 8), (4, 4, 4)),
        ((37, 50, 23), (12, 32, 8)),
    ],
)
def test_a_local_network_needs_no_whole_volume(
    local: Tokenizer, sides: Any, roi: Any, overlap: float, mode: Any
) -> None:
    x = volume(*sides)
    settings = config(*roi, overlap=overlap, mode=mode)
    tokens = encode(local, x, settings)
    assert torch.equal(tokens, local.encode(x))
    assert len(tokens.unique()) > 4
    torch.testing.assert_close(
        decode(local, tokens, sides, settings), local.decode(tokens, sides), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_a_constant_latent_stays_constant(local: Tokenizer, mode: Any) -> None:
    settings = config(8, 8, 12, mode=mode)
    latent = encode_latent(local, torch.full((1, 1, 23, 20, 17), 0.5), settings)
    assert latent.shape == (1, 3, 6, 5, 5)
    torch.testing.assert_close(
        latent, latent[:, :, :1, :1, :1].expand_as(latent), rtol=0, atol=1e-6
    )


def test_latents_are_blended_before_they_are_quantised(tokenizer: Tokenizer) -> None:
    x = volume(24, 20, 16)
    settings = config(12, 12, 12)
    latent = encode_latent(tokenizer, x, settings)
    tokens = encode(tokenizer, x, settings)
    codes = tokenizer.fsq.quantize(latent)
    assert torch.equal(tokens, tokenizer.fsq.codes_to_indices(codes))
    # Every code is on the grid (blended codes would lie between its points).
    torch.testing.assert_close(codes, tokenizer.fsq.indices_to_codes(tokens), rtol=0, atol=1e-6)
    assert bool((tokens >= 0).all() & (tokens < tokenizer.codebook_size).all())
    # And the windows did disagree, so that there was something to blend.
    first = tokenizer.autoencoder.encode(x[..., :12, :12, :12])
    assert not torch.allclose(first, latent[..., :3, :3, :3])


def test_the_blend_is_the_weighted_mean(tokenizer: Tokenizer) -> None:
    x = volume(12, 8, 8)  # 3 x 2 x 2 cells; windows of 2 x 2 x 2 at 0 and 1
    latent = encode_latent(tokenizer, x, config(8, 8, 8, mode="constant"))
    a = tokenizer.autoencoder.encode(x[:, :, :8])
    b = tokenizer.autoencoder.encode(x[:, :, 4:])
    torch.testing.assert_close(latent[:, :, 0], a[:, :, 0])
    torch.testing.assert_close(latent[:, :, 1], (a[:, :, 1] + b[:, :, 0]) / 2)
    torch.testing.assert_close(latent[:, :, 2], b[:, :, 1])


def test_a_gaussian_trusts_the_middle_of_a_window(tokenizer: Tokenizer) -> None:
    x = volume(
        24, 16, 16
    )  # windows of 4 cells at 0 and 2: cell 2 is inside the first, edge of the second
    settings = config(16, 16, 16, mode="gaussian")
    latent = encode_latent(tokenizer, x, settings)[:, :, 2]
    a = tokenizer.autoencoder.encode(x[:, :, :16])[:, :, 2]
    b = tokenizer.autoencoder.encode(x[:, :, 8:])[:, :, 0]
    # sigma = 4 / 8: weights exp(-(0.5 / 0.5)^2 / 2) and exp(-(1.5 / 0.5)^2 / 2).
    near, far = 2.718281828**-0.5, 2.718281828**-4.5
    expected = (near * a + far * b) / (near + far)
    torch.testing.assert_close(latent, expected, rtol=1e-4, atol=1e-5)


def test_windows_per_pass_change_nothing(tokenizer: Tokenizer) -> None:
    x = volume(20, 13, 16)
    one = encode(tokenizer, x, config(8, 8, 8, sw_batch_size=1))
    many = encode(tokenizer, x, config(8, 8, 8, sw_batch_size=7))
    assert torch.equal(one, many)
    a, b = (
        decode(tokenizer, one, (20, 13, 16), config(8, 8, 8, sw_batch_size=size)) for size in (1, 7)
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@given(
    sides=st.tuples(*[st.integers(1, 19)] * 3),
    roi=st.tuples(*[st.sampled_from([3, 8, 12, 64])] * 3),
)
def test_any_size_comes_back(tokenizer, sides, roi):
    settings = config(*roi, sw_batch_size=16)
    tokens = encode(tokenizer, volume(*sides), settings)
    assert tuple(tokens.shape[1:]) == tokenizer.grid(sides)
    out = decode(tokenizer, tokens, sides, settings)
    assert tuple(out.shape[2:]) == sides
    assert bool(out.isfinite().all())
    assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_sides_of_another_grid_are_refused(tokenizer: Tokenizer) -> None:
    tokens = torch.zeros(1, 3, 2, 2, dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"of \[13, 8, 8\] has \[4, 2, 2\] tokens, not \[3, 2, 2\]"
    ):
        decode(tokenizer, tokens, (13, 8, 8), config(8, 8, 8))


def passes(network: nn.Module) -> list[int]:
    """Return a list that grows by the number of windows at every pass."""
    sizes: list[int] = []
    network.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    return sizes


def in_raster_order(windows: Windows, scale: int, run: Callable[[Any], Tensor]) -> Tensor:
    """Add up the windows one by one, each computed anew."""
    shares = axis_shares(windows, scale, "gaussian")
    total: Tensor = torch.zeros(())
    for start in windows.starts:
        cells = windows.cells(start)
        output = run(cells)[0]
        if total.ndim == 0:
            total = torch.zeros(len(output), *(scale * side for side in windows.sides))
        d, h, w = (share[s] for share, s in zip(shares, start, strict=True))
        place = (slice(None), *(slice(scale * c.start, scale * c.stop) for c in cells))
        total[place] += d[:, None, None] * h[:, None] * w * output
    return total[None]


def both_ways(tokenizer: Tokenizer, x: Tensor, roi: Any) -> tuple[Any, Any]:
    """Return latent of x and volume of tokens like it, from raster order and from prod9."""
    grid = tokenizer.grid(x.shape[2:])
    windows = Windows.over(grid, [r // 4 for r in roi], 0.5)
    tokens = (x[..., ::4, ::4, ::4] * 59).long()[:, 0]

    def latent(cells: Any) -> Tensor:
        place = (slice(4 * c.start, 4 * c.stop) for c in cells)
        return tokenizer.autoencoder.encode(x[(slice(None), slice(None), *place)])

    def voxels(cells: Any) -> Tensor:
        return tokenizer.decode(tokens[(slice(None), *cells)])

    plain = in_raster_order(windows, 1, latent), in_raster_order(windows, 4, voxels)
    ours = (
        encode_latent(tokenizer, x, config(*roi)),
        decode(tokenizer, tokens, x.shape[2:], config(*roi)),
    )
    return plain, ours


def test_uniform_windows_change_no_bit(tokenizer: Tokenizer) -> None:
    """Where two windows at most meet in a cell, the order of the sum is no matter."""
    x = torch.zeros(1, 1, 160, 12, 16)
    x[:, :, 48:88] = 0.5
    x[:, :, 88:112] = volume(24, 12, 16)
    plain, ours = both_ways(tokenizer, x, (16, 12, 16))
    assert torch.equal(plain[0], ours[0])
    assert torch.equal(plain[1], ours[1])


def test_uniform_windows_go_through_once_for_each_value(make_tokenizer: Any) -> None:
    tokenizer = make_tokenizer(num_channels=(8, 8, 8))
    x = torch.zeros(1, 1, 24, 16, 48)
    x[:, :, :, :, 32:] = 0.5  # windows of 8 at 0, 4, ..., so 7 of 11 lie before 32 and 3 behind
    x[:, :, 8:16, 4:12, 8:20] = volume(8, 8, 12)
    plain, ours = both_ways(tokenizer, x, (8, 8, 8))
    for expected, actual in zip(plain, ours, strict=True):
        # Up to eight windows meet in a cell; their sum is rounded in another order. Latents of
        # this network reach 20.
        assert float(expected.abs().max()) < 20
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    # Per line of 5 x 3: 7 + 3 uniform along the last axis, and the one at 28 that has both. The
    # blob lies in 3 x 3 x 4 windows.
    mixed = 5 * 3 + 3 * 3 * 4
    tokens = (x[..., ::4, ::4, ::4] * 59).long()[:, 0]
    for size, batches in ((1, [1] * mixed), (16, [16] * (mixed // 16) + [mixed % 16])):
        settings = config(8, 8, 8, sw_batch_size=size)
        for network, work in (
            (tokenizer.autoencoder.encoder, lambda c: encode_latent(tokenizer, x, c)),
            (tokenizer.autoencoder.decoder, lambda c: decode(tokenizer, tokens, x.shape[2:], c)),
        ):
            sizes = passes(network)
            work(settings)
            assert sizes == [1, 1, *batches]


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made under it that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def _meet(self, tree: Any, count: bool) -> None:
        for leaf in tree_leaves(tree):
            if not isinstance(leaf, Tensor) or leaf.untyped_storage()._cdata in self._known:
                continue
            storage = leaf.untyped_storage()
            size = storage.nbytes() if count else 0
            self._known.add(storage._cdata)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._meet((args, kwargs), count=False)
        out = func(*args, **(kwargs or {}))
        self._meet(out, count=True)
        return out


def test_the_counter_counts() -> None:
    outside = torch.zeros(100)
    with LiveBytes() as live:
        a = outside + 1
        b = a[:10].clone()
        assert (live.now, live.peak) == (440, 440)
        del a
        assert (live.now, live.peak) == (40, 440)
        b.add_(1)
        assert (live.now, live.peak) == (40, 440)
        outside[:50]
        assert (live.now, live.peak) == (40, 440)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_eight_times_the_volume_needs_the_result_and_nothing_more(
    local: Tokenizer, mode: Any
) -> None:
    settings = config(24, 24, 24, overlap=0.25, mode=mode, sw_batch_size=2)
    beyond: dict[str, list[int]] = {"encode": [], "decode": []}
    for side in (49, 98):  # both are padded to the stride
        x = volume(side, side, side)
        tokens = local.encode(x)
        with LiveBytes() as live:
            latent = encode_latent(local, x, settings)
        beyond["encode"].append(live.peak - latent.untyped_storage().nbytes())
        with LiveBytes() as live:
            out = decode(local, tokens, x.shape[2:], settings)
        assert out.is_contiguous()
        assert out.untyped_storage().nbytes() == 4 * side**3
        beyond["decode"].append(live.peak - 4 * side**3)
    for small, large in beyond.values():
        # A window is 55 kB, the larger volume 3.8 MB. The shares along each axis are what grows.
        assert large - small < 20_000
        assert large < 1_000_000


@pytest.mark.parametrize("seed", range(3))
def test_windows_leave_no_seams(make_tokenizer: Any, seed: int) -> None:
    """Across a border the volume steps as inside a window, to half a grey level of 8 bits.

    At an overlap of a half each border lies in the middle of some window. Its own step there is
    the result's, up to the shares of the one window that ends and the one that begins: a
    thousandth each.
    """
    tokenizer = make_tokenizer(seed=seed, num_channels=(8, 8, 8))
    sides, roi = (80, 16, 16), (32, 16, 16)
    tokens = tokenizer.encode(volume(*sides))

    def excess(mode: str) -> float:
        out = decode(tokenizer, tokens, sides, config(*roi, mode=mode))
        most = 0.0
        for border in (16, 32, 48, 64):
            step = out[:, :, border] - out[:, :, border - 1]
            window = tokenizer.decode(tokens[:, (border - 16) // 4 : (border + 16) // 4])
            most = max(most, float((step - (window[:, :, 16] - window[:, :, 15])).abs().max()))
        return most

    assert excess("gaussian") < 2.1e-3
    assert excess("constant") > 2e-2  # the windows disagree, and plain averaging shows it
