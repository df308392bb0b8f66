"""``prod9 demo`` from beginning to end, reduced by overrides."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from prod9.demo.brats import run_brats_demo
from prod9.errors import Prod9Error

pytestmark = pytest.mark.slow


class References(HTMLParser):
    """What a page's elements refer to, and the ids that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.pictures = 0
        self.ids: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.pictures += tag == "img"
        for name, value in attrs:
            if name in ("src", "href") and value is not None:
                self.found.append(value)
            if name == "id" and value is not None:
                self.ids.add(value)

    @property
    def outside(self) -> list[str]:
        return [value for value in self.found if not value.startswith(("data:", "#"))]


def test_demo_writes_everything_it_promises(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "prod9"
    reduced = [
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        "trainer.limit_val_batches=1",
    ]
    overrides = [x for key in reduced for stage in (1, 2) for x in (f"--stage{stage}", key)]
    arguments = [script, "demo", *overrides, "--stage2", "sampler.steps=2"]
    arguments += ["--stage2", "evaluation.samples_per_class=4"]
    arguments += ["--stage2", "evaluation.feature_spaces=[classifier]"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    output = tmp_path / "outputs" / "demo"

    metrics = json.loads((output / "metrics.json").read_text())
    assert 0 < metrics["reconstruction"]["psnr"] < 60
    assert -1 <= metrics["reconstruction"]["ssim"] <= 1
    assert 0 <= metrics["generation"]["class_accuracy"] <= 1
    assert 0 <= metrics["generation"]["msssim"] <= 1
    assert metrics["generation"]["nearest_train_p05"] > 0
    assert metrics["generation"]["classifier_real_accuracy"] >= 0.95
    parts = ("data", "stage1", "stage2", "generation", "figures")
    seconds = metrics["seconds"]
    assert seconds["total"] == pytest.approx(sum(seconds[part] for part in parts), abs=0.5)

    assert seconds["figures: classifier"] + seconds["figures: privacy"] < seconds["figures"]
    time = metrics["demo_time"]
    assert sum(time[part] for part in ("training", "drawing", "figures", "reading", "rest")) == (
        pytest.approx(1)
    )
    assert time["figures"] == pytest.approx(seconds["figures"] / seconds["total"])
    assert time["tflop"] == pytest.approx(seconds["total"] * time["conv3d_gflops"] / 1000)
    assert "time: training " in done.stderr
    assert f"{time['conv3d_gflops']:.0f} GFLOP/s (conv3d" in done.stderr

    assert len(list((output / "generated").glob("*.nii.gz"))) == 44
    page = References(output / "index.html")
    assert {"summary", "pictures", "viewer", "reconstruction", "generation"} <= page.ids
    assert {"usefulness", "privacy", "training", "provenance"} <= page.ids
    assert page.pictures > 100  # eleven classes, four sets, three volumes each
    # Self-contained: nothing is asked of any other file or host.
    assert page.outside == []
    low, high = metrics["reconstruction"]["intervals"]["psnr"]
    assert low < metrics["reconstruction"]["psnr"] < high
    # Two steps of training draw nothing real, and copy nothing.
    (space,) = metrics["generation"]["spaces"]
    assert space["key"] == "classifier"
    assert space["frechet_ratio"] > 3
    assert space["reconstructed"]["volumes"] == 8  # what limit_val_batches leaves
    assert metrics["generation"]["privacy"]["verdict"] == "no sign of copying"

    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "already holds a demo" in again.stderr


def test_brats_demo_writes_everything_it_promises(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    shared = [
        "sliding_window.roi_size=[16,16,16]",
        "trainer.max_epochs=1",
        "data.batch_size=4",
        "data.crops_per_volume=1",
    ]
    page = run_brats_demo(
        output,
        overwrite=False,
        stage1_overrides=[
            *shared,
            "data.preprocessing.spacing_mm=[4,4,4]",
            "model.autoencoder.num_channels=[8,16]",
        ],
        stage2_overrides=[
            *shared,
            "sampler.steps=2",
            "model.transformer.hidden_dim=24",
            "model.transformer.token_dim=16",
            "model.transformer.num_blocks=1",
            "model.transformer.local_blocks=1",
        ],
        cases=6,
        voxel_mm=4.0,
    )
    metrics = json.loads((output / "metrics.json").read_text())
    translation = metrics["translation"]
    assert list(translation["drawn"]) == ["T1", "T1+T2", "T1+T1ce+T2"]
    assert translation["scans"] == 1
    for score in (
        *translation["drawn"].values(),
        *translation["matched"].values(),
        translation["mean"],
        translation["ceiling"],
    ):
        assert 0 < score["psnr"] < 40
        assert -1 <= score["ssim"] <= 1
    # One anatomy: even a mean of four scans is nearer than what an untrained model draws.
    assert translation["mean"]["psnr"] > translation["drawn"]["T1"]["psnr"]
    assert 0 < metrics["window_agreement"]["difference_l1"] < 1
    assert len(list((output / "generated").glob("*.nii.gz"))) == 4
    assert len(list((output / "example").glob("*_draw-*.nii.gz"))) == 4
    found = References(page)
    assert {"translation", "example", "nothing", "reconstruction"} <= found.ids
    assert found.outside == []
    assert f"{translation['mean']['psnr']:.2f} dB" in page.read_text()
    with pytest.raises(Prod9Error, match="already holds a demo"):
        run_brats_demo(output, overwrite=False)
