"""The notebooks of the documentation run, cell after cell."""

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "train"))  # the folder of scans is that of the command's test

from test_train_folder import make_smaller, write_folder  # noqa: E402


@pytest.mark.slow
@pytest.mark.ci
def test_own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "data" / "scans")
    notebook = json.loads((ROOT / "docs" / "notebooks" / "own_data.ipynb").read_text("utf-8"))
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"]).replace("hours=0.5", "hours=0.01")
        exec(compile(source, cell["id"], "exec"), names)
        if "plan_only=True" in source:
            make_smaller(tmp_path / "model" / "training")
    plt.close("all")
    for name in ("volume.nii.gz", "reconstructed.nii.gz", "model/report.html"):
        assert (tmp_path / name).is_file()
