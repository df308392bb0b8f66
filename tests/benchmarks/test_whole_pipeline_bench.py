"""Every contender learns both stages, draws, and is recorded."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import pipeline_training as training
from benchmarks import whole_pipeline as whole
from benchmarks.rivals.monai_pipelines import Autoregressive
from prod9.config.training import SchedulerConfig
from prod9.data.array_dataset import ArrayDataset

HAVE_MEDLATENTS = importlib.util.find_spec("medlatents") is not None
SCHEDULE = SchedulerConfig(warmup_steps=1)


def few_volumes() -> training.Data:
    random = np.random.default_rng(0)
    return {
        split: ArrayDataset(
            split,
            random.integers(0, 256, (8, 1, 28, 28, 28)).astype(np.uint8),
            classes=np.arange(8) % 2,
            class_names=("one", "two"),
        )
        for split in ("train", "val", "test")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", whole.CONTENDERS)
def test_each_contender_writes_its_figures_and_its_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.startswith("medlatents") and not HAVE_MEDLATENTS:
        pytest.skip("medlatents is not installed")
    for size, value in {"dim": 12, "depth": 1, "heads": 1}.items():  # one pass a token takes long
        monkeypatch.setattr(Autoregressive, size, value)
    monkeypatch.setattr(whole, "open_data", lambda *_: few_volumes())
    measured: dict[str, Any] = {}

    def measure(pipeline: training.Pipeline, data: training.Data, volumes: int, seed: int) -> Any:
        drawn, seconds = whole.draw_all(pipeline, [0, 1])
        assert drawn.shape == (2, 1, 28, 28, 28)
        assert float(drawn.std()) > 0
        again = pipeline.reconstruct(training.tensors(data["test"])[0])
        measured[name] = again.shape
        figures = {"psnr": 1.0, "spaces": {}, "two_sample_auc": {}, "recognised": 0.5}
        return figures | {"seconds_a_volume": seconds}, drawn, again.clamp(0, 1)

    monkeypatch.setattr(whole, "evaluate", measure)
    monkeypatch.setattr("prod9.runtime.allocator.keep_freed_memory", lambda: True)
    arguments = ["--seconds", "0.02", "--contenders", name, "--output", str(tmp_path)]
    assert whole.main(arguments) == 0
    assert measured == {name: (8, 1, 28, 28, 28)}
    record = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
    assert record["training"]["steps"] == [1, 1]
    assert record["rates"]["stage1"] > 0
    assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_an_unknown_contender_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert whole.main(["--contenders", "nobody", "--output", str(tmp_path)]) == 2
    assert "nobody" in capsys.readouterr().err


def test_the_better_weights_are_kept() -> None:
    # One number that learns to be 1: the last weights are nearer than the averaged ones.
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)

    def loss(network: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
        return (network(x) - 1).square().mean()

    data = torch.ones(4, 1), torch.zeros(4, dtype=torch.long)
    best, figure, steps = training.spend(
        network,
        loss,
        lambda network: float(loss(network, *data)),
        data,
        rate=0.05,
        batch=2,
        seconds=0.2,
        schedule=SCHEDULE,
        seed=0,
    )
    assert steps > 10
    assert figure == pytest.approx(float(loss(best, *data)))
    assert figure < 0.5


def test_scans_are_cut_and_filled_up_in_the_middle() -> None:
    scan = np.zeros((30, 40, 26), np.float32)
    scan[15, 20, 13] = 4.0
    cube = training._middle(scan + np.linspace(0, 1, 26))
    assert cube.shape == (28, 28, 28)
    assert cube[14, 14, 14] == 1.0
    assert not cube[:, :, 0].any()
    assert not cube[:, :, 27].any()
