"""Shapes and types are checked at run time, in tests only."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

# Tests that run side by side (pytest -n) share the cores; read by torch when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Two busy cores make any deadline a coin toss; a slow test is pytest's business, not hypothesis'.
# The same examples each time: a test that fails does so for everyone. For others there are
# `make fuzz` and `pytest --hypothesis-profile=others`.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("others", deadline=None)
settings.load_profile("same")

# Not the whole of prod9: beartype 0.23 cannot read `-> Self` in pydantic's models.
_CHECKED = [
    f"prod9.{name}"
    for name in (
        "data",
        "fsq",
        "guidance",
        "losses",
        "masking",
        "metrics",
        "model",
        "networks",
        "outpainting",
        "sampling",
        "tokenizer",
        "training.ema",
        "training.optimizer",
        "training.stage1_module",
        "training.stage2_module",
        "windows",
    )
]
install_import_hook(_CHECKED, "beartype.beartype")


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a maker of folders on disks of their own, of so many MiB; needs root."""
    disks: list[Path] = []

    def make(mib: int) -> Path:
        disk = tmp_path / f"disk{len(disks)}"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(disk)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount a disk")
        disks.append(disk)
        return disk

    yield make
    for disk in disks:
        subprocess.run(["umount", "-l", disk], check=True)
