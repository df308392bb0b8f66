"""The windows benchmark: MONAI's windows give what prod9's give, and growth is judged right."""

from typing import Any

import pytest
import torch

from benchmarks import windows as bench
from benchmarks.costs import Cost
from benchmarks.rivals import monai_inference
from prod9.config import AutoencoderConfig, SlidingWindowConfig
from prod9.sliding_window import Windows, decode, encode, replicated_crop, uniform
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder

pytestmark = pytest.mark.slow


SIDES = (41, 28, 16)
"""Padded to a multiple of 4: 44, 28, 16."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Return a tiny tokenizer of stride 4 whose tokens vary from cell to cell."""
    sizes = AutoencoderConfig(levels=(5, 4, 3), num_channels=(8, 8, 8), norm_num_groups=4)
    torch.manual_seed(0)
    autoencoder = build_autoencoder(sizes)
    for parameter in autoencoder.parameters():
        if not parameter.detach().any():
            parameter.data = 0.3 * torch.randn(parameter.shape)
    autoencoder.encoder[-1].weight.data *= 4
    spec = TokenizerSpec(
        autoencoder=sizes,
        dataset_name="organmnist3d",
        volume_shape=(16, 16, 16),
        spacing_mm=(1.0, 1.0, 1.0),
        class_names=("any",),
        config_yaml="",
    )
    return Tokenizer(spec, autoencoder)


def config(mode: Any) -> SlidingWindowConfig:
    return SlidingWindowConfig(roi_size=(16, 16, 16), overlap=0.25, mode=mode, sw_batch_size=2)


@pytest.mark.parametrize(
    ("mode", "same", "near"), [("constant", 1.0, 1e-5), ("gaussian", 0.8, 0.1)]
)
def test_monai_gives_the_same(tokenizer: Tokenizer, mode: Any, same: float, near: float) -> None:
    """Equal weights: to rounding. MONAI's Gaussian is made for voxels and sampled for cells."""
    x = torch.rand(1, 1, *SIDES, generator=torch.Generator().manual_seed(0))
    network, fsq, windows = tokenizer.autoencoder, tokenizer.fsq, config(mode)
    ours = encode(tokenizer, x, windows)
    theirs = monai_inference.encode(network.encode, fsq, x, 4, windows)
    assert ours.shape == theirs.shape == (1, 11, 7, 4)
    assert len(ours.unique()) > 20
    assert float((ours == theirs).float().mean()) >= same
    a = decode(tokenizer, ours, SIDES, windows)
    b = monai_inference.decode(
        lambda codes: network.decode(codes).clamp(0, 1), fsq, ours, SIDES, 4, windows
    )
    assert a.shape == b.shape == x.shape
    assert float((a - b).abs().mean()) < near
    assert float(a.std()) > 10 * near or mode == "gaussian"


def test_contenders_do_the_same_work() -> None:
    """At the real sizes: the shipped widths, windows of 64^3, two of them."""
    arguments: dict[str, Any] = {"sides": (64, 64, 112), "content": "anatomy", "seed": 0}
    ours, theirs = (f("encode", **arguments).run() for f in (bench.prod9, bench.inferer))
    assert ours.shape == theirs.shape == (1, 8, 8, 14)
    assert float((ours == theirs).float().mean()) > 0.95
    assert len(ours.unique()) > 3
    works = [f("decode", **arguments) for f in (bench.prod9, bench.inferer)]
    a, b = (work.run() for work in works)
    assert a.shape == b.shape == (1, 1, 64, 64, 112)
    # Their Gaussian has steps of a cell in the decoder; where windows do not meet, all is equal.
    torch.testing.assert_close(a[..., :48], b[..., :48], rtol=0, atol=1e-5)
    assert float(a[..., :48].std()) > 1e-3
    assert works[0].flops == 2 * bench._window_flops("decode")


def test_as_many_windows_as_monai_has() -> None:
    from monai.data.utils import dense_patch_slices

    for side, count in ((96, 8), (128, 27), (256, 125)):
        assert bench.number_of_windows((side,) * 3) == count
        assert len(dense_patch_slices((side,) * 3, (64,) * 3, (48,) * 3)) == count
    assert bench.number_of_windows(bench.SCAN) == 75
    for side in bench.GROWING_SIDES:
        assert bench.number_of_windows((side,) * 3) * 48**3 == side**3


def uniform_windows(volume: torch.Tensor, step: int) -> list[bool]:
    windows = Windows.over(volume.shape[2:], (64, 64, 64), 1 - step / 64)
    return [uniform(replicated_crop(volume, s, (64, 64, 64))) is not None for s in windows.starts]


def test_anatomy_leaves_nothing_to_skip() -> None:
    volume = bench.anatomy((128, 128, 112), 0)
    assert volume.shape == (1, 1, 128, 128, 112)
    assert 0 <= float(volume.min()) < float(volume.max()) <= 1
    assert not any(uniform_windows(volume, 48))
    # Brain everywhere, with structure beyond the noise.
    assert float((volume > 0.2).float().mean()) > 0.95
    smooth = torch.nn.functional.avg_pool3d(volume, 8)
    assert float(smooth.std()) > 0.05


def test_a_scan_is_mostly_background() -> None:
    volume = bench.skull_stripped(bench.SCAN, 0)
    assert float((volume == 0).float().mean()) > 0.8
    assert float(volume.max()) == 1
    skipped = uniform_windows(volume, 48)
    assert 0 < sum(skipped) < len(skipped) / 2


def costs(power: float, memory: float) -> dict[str, dict[int, Cost]]:
    """Time like voxels to a power, memory times ``memory`` from the first to the last side."""
    low, high = bench.GROWING_SIDES[0], bench.GROWING_SIDES[-1]
    found: dict[str, dict[int, Cost]] = {}
    for way in ("encode", "decode"):
        found[way] = {}
        for side in bench.GROWING_SIDES:
            own = 100 * memory ** ((side - low) / (high - low))
            result = side**3 / 512 * 8 if way == "encode" else side**3 * 4
            found[way][side] = Cost(1e-6 * side ** (3 * power), 0, own + result / 2**20)
    return found


def test_growth_is_judged() -> None:
    good = bench.judge_growth(costs(1.0, 1.2))
    assert good.met is True
    assert good.figures["exponent"] == {
        name: pytest.approx(1.0) for name in ("prod9, encode", "prod9, decode")
    }
    assert good.figures["memory_growth"]["prod9, decode"] == pytest.approx(1.2)
    series = good.figures["memory_over_size"]["series"]["prod9, decode"]
    assert series[0] == pytest.approx([144**3, 100])
    assert [goal.met for goal in bench.judge_growth(costs(1.2, 1.0)).goals] == [False] * 2 + [
        True
    ] * 2
    assert [goal.met for goal in bench.judge_growth(costs(0.95, 1.3)).goals] == [True] * 2 + [
        False
    ] * 2


def test_the_cases() -> None:
    cases = {case.name: case for case in bench.cases()}
    assert set(cases) == {
        *(f"windows_{way}_{side}" for way in ("encode", "decode") for side in (128, 256)),
        "windows_encode_scan",
    }
    for case in cases.values():
        ours, inferer, *others = case.contenders
        assert (ours.name, inferer.name) == ("prod9", bench.INFERER)
        assert ours.arguments == inferer.arguments
        for other in others:
            assert other.arguments == ours.arguments | {"kind": other.name}
    assert cases["windows_encode_128"].sizes["overlap"] == 0.25
    assert cases["windows_decode_256"].per_repeat == {"volumes": 1, "windows": 125}
