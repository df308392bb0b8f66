"""The page on extending prod9, followed from top to bottom in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
ENTRY_POINTS = """[prod9.extensions]
dataset = my_dataset
loss = my_loss
order = my_order
"""


def files() -> dict[str, str]:
    """Return the files of the page: blocks with a name beside their language."""
    return dict(re.findall(r"```\w+ (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files, and what ``pip install`` makes of its pyproject.toml."""
    root = tmp_path_factory.mktemp("extending")
    for name, text in files().items():
        (root / name).write_text(text)
    info = root / "my_prod9_extensions-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: my-prod9-extensions\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return root


def run(folder: Path, *command: str) -> str:
    paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_each_extension_is_one_file_of_less_than_40_lines() -> None:
    for name in ("my_dataset.py", "my_loss.py", "my_order.py"):
        assert len(files()[name].splitlines()) < 40, name


def test_the_entry_points_are_those_of_the_page() -> None:
    for line in ENTRY_POINTS.splitlines()[1:]:
        name, module = line.split(" = ")
        assert f'{name} = "{module}"' in files()["pyproject.toml"]


@pytest.mark.slow
@pytest.mark.ci
def test_both_stages_train_and_generate_with_them(folder: Path) -> None:
    run(folder, "make_volumes.py")
    run(folder, "use_them.py")
    for stage, key, value in [
        ("stage1", ("loss", "charbonnier", "epsilon"), 0.01),
        ("stage2", ("sampler", "order"), "inside_out"),
        ("stage2", ("data", "dataset_name"), "npy_folder"),
    ]:
        found = yaml.safe_load((folder / "runs" / stage / "config.yaml").read_text())
        for part in key:
            found = found[part]
        assert found == value
    logged = (folder / "runs" / "stage1" / "history" / "metrics.csv").read_text()
    assert "charbonnier" in logged.splitlines()[0]
    first, second = (np.asarray(nib.load(folder / f"ball_{n}.nii.gz").dataobj) for n in (0, 1))  # type: ignore[attr-defined]
    assert first.shape == (12, 12, 12)
    assert np.ptp(first) > 0
    assert not np.array_equal(first, second)


@pytest.mark.slow
@pytest.mark.ci
def test_the_console_commands_know_an_installed_extension(folder: Path) -> None:
    run(folder, "make_volumes.py")
    command = "from prod9.cli.autoencoder import run; run()"
    text = run(folder, "-c", command, "train", "--config", "stage1.yaml", "--print-config")
    assert yaml.safe_load(text)["loss"]["charbonnier"] == {"epsilon": 0.01, "weight": 1.0}
