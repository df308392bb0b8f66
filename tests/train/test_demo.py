"""``prod9 demo`` from beginning to end, reduced by overrides."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_demo_writes_everything_it_promises(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "prod9"
    reduced = [
        "trainer.max_epochs=1",
        "trainer.limit_train_batches=2",
        "trainer.limit_val_batches=1",
    ]
    overrides = [x for key in reduced for stage in (1, 2) for x in (f"--stage{stage}", key)]
    arguments = [script, "demo", *overrides, "--stage2", "sampler.steps=2"]
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

    assert len(list((output / "generated").glob("*.nii.gz"))) == 44
    page = (output / "index.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert f"{metrics['reconstruction']['psnr']:.2f} dB" in page
    # Self-contained: nothing is asked of any other file or host.
    assert not re.search(r'(src|href)="(?!data:)', page)

    again = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "already holds a demo" in again.stderr
