"""Our FSQ against `vector-quantize-pytorch`, and what must survive every precision."""

import math

import pytest
import torch
from vector_quantize_pytorch import FSQ as Reference

from prod9.fsq import FSQ

LEVELS = [(8, 8, 8), (8, 8, 6, 5), (6, 6, 6, 5), (5, 5, 5, 5)]
SIZES = [512, 1920, 1080, 625]
PRECISIONS = [torch.float32, torch.bfloat16, torch.float16]


def _latents(channels: int, grid: tuple[int, ...] = (5, 6, 7)) -> torch.Tensor:
    """Wide enough that the outermost levels and the saturated ends of tanh are met."""
    return 2.5 * torch.randn(3, channels, *grid, generator=torch.Generator().manual_seed(0))


def _reference(levels: tuple[int, ...]) -> Reference:
    """Its defaults are the paper's bound (``preserve_symmetry=False``), latents channel first."""
    return Reference(list(levels), preserve_symmetry=False, channel_first=True)


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_indices_and_gradients(levels):
    ours, theirs = FSQ(levels), _reference(levels)
    z = _latents(len(levels))
    a, b = z.clone().requires_grad_(), z.clone().requires_grad_()
    codes = ours.quantize(a)
    expected, indices = theirs(b)
    torch.testing.assert_close(codes, expected, rtol=0, atol=1e-6)
    assert torch.equal(ours.codes_to_indices(codes), indices.long())
    upstream = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    codes.backward(upstream)
    expected.backward(upstream)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("levels", "size"), zip(LEVELS, SIZES, strict=True))
def test_the_whole_codebook(levels, size):
    fsq, reference = FSQ(levels), _reference(levels)
    assert fsq.codebook_size == reference.codebook_size == size
    codes = fsq.indices_to_codes(torch.arange(size)[None])  # (1, l, size)
    torch.testing.assert_close(codes[0].T, reference.implicit_codebook, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("levels", LEVELS)
def test_every_index_survives_the_round_trip(levels, precision):
    fsq = FSQ(levels)
    tokens = torch.arange(fsq.codebook_size).reshape(1, -1)
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        codes = fsq.indices_to_codes(tokens)
        assert torch.equal(fsq.codes_to_indices(codes), tokens)
        # Codes that went through a half-precision tensor are still nearest to themselves.
        assert torch.equal(fsq.codes_to_indices(codes.to(precision)), tokens)
    assert codes.dtype == torch.float32
    assert codes.abs().max() <= 1
    assert len(codes[0].T.unique(dim=0)) == fsq.codebook_size


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("levels", LEVELS)
def test_half_precision_latents_give_the_tokens_of_their_fp32_values(levels, precision):
    fsq = FSQ(levels)
    z = _latents(len(levels)).to(precision)
    expected = fsq.codes_to_indices(fsq.quantize(z.float()))
    with torch.autocast("cpu", dtype=precision):
        codes = fsq.quantize(z)
        assert torch.equal(fsq.codes_to_indices(codes), expected)
    assert codes.dtype == torch.float32


@pytest.mark.parametrize("levels", LEVELS)
def test_straight_through_gradient_is_that_of_the_bound(levels):
    fsq = FSQ(levels)
    z = _latents(len(levels)).requires_grad_()
    fsq.quantize(z).sum().backward()
    # b = tanh(z + s) h - o, hence db/dz = (1 - tanh^2(z + s)) h; then over floor(L / 2).
    for channel, level in enumerate(levels):
        h = (level - 1) * 1.001 / 2
        s = math.atanh((0.5 if level % 2 == 0 else 0.0) / h)
        slope = (1 - torch.tanh(z[:, channel].detach().double() + s) ** 2) * h / (level // 2)
        torch.testing.assert_close(z.grad[:, channel].double(), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("levels", LEVELS[:3])  # five levels happen to survive it
def test_quantising_twice_is_not_what_codes_to_indices_does(levels):
    # Codes bounded a second time lose most of the codebook; ours are taken as they are.
    fsq = FSQ(levels)
    tokens = torch.arange(fsq.codebook_size)[None]
    codes = fsq.indices_to_codes(tokens)
    twice = fsq.codes_to_indices(fsq.quantize(codes))
    assert len(twice.unique()) < fsq.codebook_size
    assert torch.equal(fsq.codes_to_indices(codes), tokens)


@pytest.mark.parametrize("levels", LEVELS)
def test_codes_off_by_less_than_half_a_step_keep_their_tokens(levels):
    fsq = FSQ(levels)
    tokens = torch.arange(fsq.codebook_size)[None]
    codes = fsq.indices_to_codes(tokens)
    for shift in (-0.4, 0.4):
        step = torch.tensor([shift / (level // 2) for level in levels])[:, None]
        assert torch.equal(fsq.codes_to_indices(codes + step), tokens)


@pytest.mark.parametrize("levels", LEVELS)
def test_every_level_is_reached_and_none_beyond(levels):
    fsq = FSQ(levels)
    ramp = torch.linspace(-20, 20, 4001).expand(1, len(levels), 4001)
    digits = fsq.indices_to_digits(fsq.codes_to_indices(fsq.quantize(ramp)))[0]
    for channel, level in enumerate(levels):
        assert digits[channel].unique().tolist() == list(range(level))


def test_indices_beyond_what_fp32_can_count() -> None:
    fsq = FSQ([255, 255, 257, 5])  # 83,552,625 codes
    tokens = torch.tensor([[0, 2**24 + 1, 2**25 + 3, fsq.codebook_size - 1]])
    assert torch.equal(fsq.codes_to_indices(fsq.indices_to_codes(tokens)), tokens)
