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
