"""The growth benchmark: what is measured is done, and exponents and ratios are right."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import data_files, growth
from benchmarks.contender import Work
from benchmarks.costs import Cost

pytestmark = pytest.mark.slow


def powers(factor: float, time: float, memory: float, sizes: tuple[int, ...]) -> dict[float, Cost]:
    return {n: Cost(factor * n**time, 5 * n**memory, 0) for n in sizes}


def test_exponents_and_ratio_at_the_largest_common_size() -> None:
    costs = {
        "prod9": powers(1.0, 1.0, 0.5, (10, 100, 1000)),
        "rival": powers(3.0, 1.0, 1.0, (100, 10)),
    }
    found = growth.grown("growth_x", "title", "things", costs)
    assert found.figures["exponent"]["prod9"] == pytest.approx({"time": 1.0, "memory": 0.5})
    assert found.figures["exponent"]["rival"] == pytest.approx({"time": 1.0, "memory": 1.0})
    assert found.figures["compared_at"] == {"things": 100}
    assert found.ours == pytest.approx(100)
    assert found.ratio == pytest.approx({"rival": 3.0})
    series = found.figures["cost_over_size"]["series"]
    assert series["rival"] == [pytest.approx([10, 30]), pytest.approx([100, 300])]
    assert found.figures["memory_over_size"]["series"]["prod9"][0] == pytest.approx(
        [10, 5 * 10**0.5]
    )


def test_a_repeat_goes_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parameter that matters gets a gradient, anew in each repeat."""
    networks: list[torch.nn.Module] = []
    import prod9.tokenizer as tokenizer

    build: Callable[..., torch.nn.Module] = tokenizer.build_autoencoder
    monai: Callable[..., torch.nn.Module] = growth.monai_network

    def kept(maker: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
        def make(*args: Any) -> torch.nn.Module:
            networks.append(maker(*args))
            return networks[-1]

        return make

    monkeypatch.setattr(tokenizer, "build_autoencoder", kept(build))
    monkeypatch.setattr(growth, "monai_network", kept(monai))
    for setup in (growth.prod9_volume, growth.monai_volume):
        work = setup(16)
        work.run()
        (network,) = networks
        first = [p.grad.clone() for p in network.parameters() if p.grad is not None]
        assert len(first) == len(list(network.parameters()))
        assert any(bool(g.any()) for g in first[:2])  # down to the first layer
        work.run()
        second = [p.grad for p in network.parameters() if p.grad is not None]
        # The same again and not the sum; MAISI draws its latent anew.
        if setup is growth.prod9_volume:
            for a, b in zip(first, second, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
        assert work.parameters == sum(p.numel() for p in network.parameters())
        networks.clear()


def test_the_first_batch_of_each_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROD9_CACHE", str(tmp_path))
    monkeypatch.setattr(
        data_files.subprocess, "run", lambda command, **_: data_files._main(*command[3:])
    )
    volumes = growth.prod9_npz(20).run()
    assert volumes.volumes.shape == (8, 1, 28, 28, 28)
    assert growth.monai_npz(20).run()["image"].shape == (8, 1, 28, 28, 28)
    assert growth.prod9_store(70).run().tokens.shape == (64, 8, 8, 8)
    assert not list(tmp_path.rglob("00000.npy"))  # of a large store no file for each volume


def test_every_point_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def alone(
        setup: Callable[..., Work], *, repeats: int = 1, warmup: int = 0, **arguments: Any
    ) -> Cost:
        asked.append((setup.__name__, arguments))
        size = float(arguments.get("side", arguments.get("count")))
        return Cost(size**3, size, 0)

    monkeypatch.setattr(growth, "alone", alone)
    side, tokens, dataset = growth.run()
    assert [r.name for r in (side, tokens, dataset)] == [
        "growth_volume_side",
        "growth_tokens",
        "growth_dataset",
    ]
    # Time like side^3 is time like voxels, and like tokens.
    for found in (side, tokens):
        for exponents in found.figures["exponent"].values():
            assert exponents == pytest.approx({"time": 1.0, "memory": 1 / 3})
    assert dataset.figures["exponent"]["prod9"]["time"] == pytest.approx(3.0)
    assert [a["side"] for name, a in asked if name == "prod9_volume"] == [16, 24, 32, 48, 64]
    assert ("prod9_tokens", {"side": 16, "patch_size": 2}) in asked
    assert ("prod9_tokens", {"side": 6, "patch_size": 1}) in asked
    assert [a["count"] for name, a in asked if name == "prod9_store"] == [200, 2000, 20000]
    # Another way of prod9's is drawn, and is no rival.
    assert set(tokens.ratio) == {"nn.TransformerEncoder"}
    assert set(dataset.ratio) == {"MONAI CacheDataset"}
    assert "prod9, token store" in dataset.figures["cost_over_size"]["series"]
