"""Models inside the package: found by name, after what is the user's own."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import prod9
from prod9.cli import main
from prod9.errors import Prod9Error
from prod9.inference.model import Model
from prod9.inference.shipped import FOLDER, shipped_folder, shipped_names

MOST_BYTES = 10_000_000
"""Of all that a model adds to the package."""


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_model_is_small_and_says_what_it_is(name: str) -> None:
    files = [path for path in (FOLDER / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    card = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    assert "Licence of the weights: not stated" not in card
    assert "licence of the data | not stated" not in card
    for file in ("config.json", "metrics.json"):  # no path of the machine that trained it
        text = (FOLDER / name / file).read_text(encoding="utf-8")
        assert re.search(r"(?:^|[\s\"'])/\w+/", text) is None, file


def test_brain_regions_are_generated_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["generate", "brain-regions", "--class", "thalamus", "-n", "2", "--steps", "2"]
    result = CliRunner().invoke(main.app, arguments)
    assert result.exit_code == 0, result.output
    made = sorted(path.name for path in Path("outputs/brain-regions/generated").glob("*.nii.gz"))
    assert len(made) == 2


def test_the_same_from_python() -> None:
    model = prod9.load("brain-regions")
    assert isinstance(model, Model)
    one, other = model.generate("brainstem", n=2, seed=3, steps=2)
    values = one.get_fdata()
    assert values.shape == (28, 28, 28)
    assert 0 <= values.min() < 0.3 < values.max() <= 1
    assert not np.array_equal(values, other.get_fdata())


def test_the_users_own_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_folder("brain-regions") == FOLDER / "brain-regions"
    Path("brain-regions").mkdir()
    assert shipped_folder("brain-regions") is None


def test_an_unknown_name_is_told_the_known_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shipped_folder("brain") is None
    with pytest.raises(Prod9Error, match=r"no file brain; .*brain-regions"):
        prod9.load("brain")
