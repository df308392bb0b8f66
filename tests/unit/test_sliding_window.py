import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from prod9.config import SlidingWindowConfig
from prod9.sliding_window import Windows, decode, encode, encode_latent
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
    tokenizer.autoencoder.decoder = SubVoxels()
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
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
@pytest.mark.parametrize(
    ("sides", "roi"),
    [((20, 24, 16), (8, 12, 16)), ((21, 9, 30), (12, 8, 8)), ((17, 1, 8), (4, 4, 4))],
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
