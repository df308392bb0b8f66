"""The encode and decode benchmark: equal work on both sides, and its arithmetic."""

import itertools
import math

import pytest
import torch
from torch import nn

from benchmarks import encode_decode as bench
from prod9.config.model import AutoencoderConfig

pytestmark = pytest.mark.slow


SIDE, BATCH = 28, 2
PADDED = 32


def convolution_flops(way: str, sizes: AutoencoderConfig) -> int:
    """Count by hand: twice kernel x inputs x outputs for each cell of each convolution's result."""
    widths, cells = sizes.num_channels, [(PADDED >> level) ** 3 for level in range(4)]
    blocks = sizes.num_res_blocks * sum(
        2 * 27 * w * w * n for w, n in zip(widths, cells, strict=True)
    )
    latent = len(sizes.levels)
    pairs = list(itertools.pairwise(widths))
    if way == "encode":
        ends = 27 * widths[0] * cells[0] + latent * widths[-1] * cells[-1]
        between = sum(64 * a * b * n for (a, b), n in zip(pairs, cells[1:], strict=True))
    else:
        ends = 27 * latent * widths[-1] * cells[-1] + 27 * widths[0] * cells[0]
        between = sum(27 * b * 8 * a * n for (a, b), n in zip(pairs, cells[1:], strict=True))
    return 2 * BATCH * (blocks + ends + between)


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_flops_are_those_of_the_convolutions(way: str) -> None:
    setup = {"encode": bench.prod9_encode, "decode": bench.prod9_decode}[way]
    sizes = bench.preset("ffl").model.autoencoder
    assert setup("ffl", SIDE, BATCH, 0).flops == convolution_flops(way, sizes)


def test_what_is_timed_is_the_whole_way_to_tokens_and_back() -> None:
    tokenizer = bench.untrained_tokenizer("ffl", SIDE, 3)
    torch.manual_seed(3)
    bench.untrained_tokenizer("ffl", SIDE, 3)
    volumes = torch.rand(BATCH, 1, SIDE, SIDE, SIDE)  # what a setup draws after the weights
    tokens = bench.prod9_encode("ffl", SIDE, BATCH, 3).run()
    latent = tokenizer.autoencoder.encode(volumes)
    expected = tokenizer.fsq.codes_to_indices(tokenizer.fsq.quantize(latent))
    assert torch.equal(tokens, expected)
    assert len(tokens.unique()) > 1
    volume = bench.prod9_decode("ffl", SIDE, BATCH, 3).run()
    assert volume.shape == volumes.shape
    assert 0 <= float(volume.min()) < float(volume.max()) <= 1


@pytest.mark.parametrize("kind", [bench.MAISI, bench.AUTOENCODER_KL])
def test_rivals_do_as_much(kind: str) -> None:
    sizes = bench.preset("ffl").model.autoencoder
    encode = bench.monai_encode(kind, "ffl", SIDE, BATCH, 0)
    decode = bench.monai_decode(kind, "ffl", SIDE, BATCH, 0)
    grid = [PADDED // 8] * 3
    latent, volume = encode.run(), decode.run()
    assert list(latent.shape) == [BATCH, len(sizes.levels), *grid]
    assert list(volume.shape) == [BATCH, 1, PADDED, PADDED, PADDED]
    assert not latent.requires_grad
    assert not volume.requires_grad
    # The same widths, level by level, and the same number of residual blocks.
    network = bench.monai_network(kind, "ffl")
    assert not network.training
    groups = [m for m in network.encoder.modules() if isinstance(m, nn.GroupNorm)]
    assert {m.num_groups for m in groups} == {sizes.norm_num_groups}
    convolutions = [m for m in network.encoder.modules() if isinstance(m, nn.Conv3d)]
    assert {m.out_channels for m in convolutions} == {*sizes.num_channels, len(sizes.levels)}
    # Other ways down and up than prod9's, but the same order of work.
    for work, ours in (
        (encode, bench.prod9_encode("ffl", SIDE, BATCH, 0)),
        (decode, bench.prod9_decode("ffl", SIDE, BATCH, 0)),
    ):
        assert work.flops is not None
        assert ours.flops is not None
        assert 0.5 < work.flops / ours.flops < 2


def test_the_cases() -> None:
    cases = {case.name: case for case in bench.cases()}
    assert set(cases) == {
        f"{way}_{name}_{side}"
        for way in ("encode", "decode")
        for name in ("ffl", "base")
        for side in (28, 64)
    }
    for case in cases.values():
        names = [contender.name for contender in case.contenders]
        assert names == ["prod9", bench.MAISI, bench.AUTOENCODER_KL]
        assert [(goal.rival, goal.ratio) for goal in case.goals] == [(bench.MAISI, 1.5)]
        arguments = case.contenders[0].arguments
        assert case.per_repeat == {"volumes": arguments["batch"]}
        assert case.sizes["rivals_side"] == 8 * math.ceil(arguments["side"] / 8)
        for contender in case.contenders[1:]:
            assert contender.arguments.items() >= arguments.items()
    assert cases["encode_base_64"].sizes["widths"] == [64, 128, 128, 256]
    assert cases["decode_ffl_28"].sizes["batch"] == 16
