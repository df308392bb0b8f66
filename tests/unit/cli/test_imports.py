"""What short commands import: modules are counted, as seconds differ between machines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
sys.argv[0] = "prod9"
from prod9.cli.main import run
try:
    run()
except SystemExit as end:
    assert not end.code
print("MODULES", *sys.modules)
"""
LATER = {
    *(
        "torch._dynamo",
        "torchmetrics",
        "scipy.stats",
        "scipy.ndimage",
        "matplotlib",
        "nilearn",
        "requests",
        "PIL",
    ),
    *("pytorch_lightning", "lightning_fabric", "sklearn", "monai", "pandas", "SimpleITK", "onnx"),
}
"""Packages that only training, measuring, drawing, or a download needs."""


def modules_of(*words: str, cwd: Path) -> set[str]:
    """Return what is imported at the end of ``prod9 WORDS``."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return {*done.stdout.split("MODULES ")[1].split()}


@pytest.mark.parametrize(
    ("words", "most", "absent"),
    [
        ("--help", 300, {"numpy", "pydantic", "rich.table", "torch"}),
        ("data list", 750, {"torch"}),
        ("doctor", 2000, {"jinja2"}),
    ],
)
def test_a_short_command_imports_little(
    words: str, most: int, absent: set[str], tmp_path: Path
) -> None:
    modules = modules_of(*words.split(), cwd=tmp_path)
    assert not (LATER | absent) & modules
    assert len(modules) < most


def test_a_model_is_loaded_without_what_trains(tmp_path: Path) -> None:
    code = "import sys, prod9; prod9.load, prod9.Model; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, cwd=tmp_path
    )
    assert not LATER & {*done.stdout.split()}, done.stderr


FIRST_BATCH = """
import sys
import numpy as np
from prod9.cli.autoencoder import run
from prod9.data import medmnist
from prod9.data.array_dataset import ArrayDataset

class Words:
    isatty = lambda self: False
    flush = lambda self: None
    def write(self, text):
        if text.strip():
            print("SAID", "torch" in sys.modules, text.strip())

sys.stderr = Words()
toy = ArrayDataset("toy", np.zeros((4, 1, 28, 28, 28), np.uint8))
medmnist.load = lambda config, split: toy
try:
    run()
except SystemExit as end:
    assert not end.code
print("MODULES", *sys.modules)
"""


def test_training_speaks_first_and_imports_nothing_that_measures_or_draws(tmp_path: Path) -> None:
    words = [
        *("train", "--config", "demo/stage1.yaml", f"output_dir={tmp_path / 'run'}"),
        *(f"autoencoder_export_path={tmp_path / 'a.pt'}", "data.batch_size=2"),
        *("data.num_workers=0", "model.autoencoder.num_channels=[8,8]"),
        *("model.autoencoder.norm_num_groups=4", "callbacks.preview.every_n_steps=0"),
        *("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", FIRST_BATCH, *words], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    said, _, modules = done.stdout.partition("MODULES ")
    assert said.startswith("SAID False Stage 1: starting\n")
    assert (tmp_path / "a.pt").exists()
    # The optimizer imports torch._dynamo, Lightning the others.
    needed = {"torch._dynamo", "pytorch_lightning", "lightning_fabric", "torchmetrics"}
    needed |= {"PIL", "requests"}
    found = {*modules.split()}
    assert not ((LATER - needed) | {"scipy.signal", "prod9.evaluation", "prod9.report"}) & found
    assert len(found) < 3600
