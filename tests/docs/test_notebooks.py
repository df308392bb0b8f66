"""The notebooks of the documentation run, cell after cell."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "docs" / "notebooks"
sys.path.append(str(ROOT / "tests" / "train"))  # the folder of scans is that of the command's test

from test_train_folder import make_smaller, write_folder  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.ci]


def run(name: str, folder: Path, **other: str) -> dict[str, Any]:
    """Run a notebook in a folder, with other texts in its cells; return what it has defined."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text("utf-8"))
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                continue
            source = "".join(cell["source"])
            for old, new in other.items():
                source = source.replace(old, new)
            exec(compile(source, cell["id"], "exec"), names)
            if "plan_only=True" in source:
                make_smaller(folder / "model" / "training")
    plt.close("all")
    return names


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which ``own_data`` has run."""
    folder = tmp_path_factory.mktemp("notebooks")
    write_folder(folder / "data" / "scans")
    run("own_data", folder, **{"hours=0.5": "hours=0.01"})
    return folder


def test_own_data(trained: Path) -> None:
    for name in ("volume.nii.gz", "reconstructed.nii.gz", "model/report.html"):
        assert (trained / name).is_file()


def test_quickstart(trained: Path) -> None:
    names = run("quickstart", trained, **{'"brain-regions"': '"model"'})
    assert len(names["volumes"]) == 4
    first, second = (image.get_fdata() for image in names["filled"])
    assert not np.array_equal(first, second)
    assert names["decoded"].shape == names["volumes"][0].shape


def test_evaluate_any_generator(tmp_path: Path) -> None:
    write_folder(tmp_path / "all", count=60)
    for index, path in enumerate(sorted((tmp_path / "all").rglob("*.nii.gz"))):
        folder = tmp_path / ("real", "train", "train", "generated")[index % 4] / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder)
    names = run("evaluate_any_generator", tmp_path)
    assert {space.key for space in names["generation"].spaces} == {"efficientnet", "classifier"}
    assert names["generation"].privacy.verdict == "no sign of copying"
    assert (tmp_path / "evaluation" / "report.html").is_file()
