"""``prod9-train-transformer sweep``: seeded, continues where it was, and names a preset."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_mistakes import SCRIPTS, STAGE1, STAGE2, arrays, write_configs, write_data

from prod9.config.load import load_stage2

GRID = [f"--{key}={value}" for key, value in (("steps", 2), ("steps", 3), ("temperature", 0.5))]
ORDERS = ["--order=confidence", "--order=halton"]
FEW = ["--num-samples", "2", "--space", "classifier"]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with both stages trained for a moment."""
    write_data(tmp_path / "data", **arrays())
    write_configs(tmp_path)
    monkeypatch.chdir(tmp_path)
    for script, config in ((STAGE1, "stage1.yaml"), (STAGE2, "stage2.yaml")):
        call(monkeypatch, script, "train", "--config", config)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    try:
        SCRIPTS[script]()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text())


def without_times(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds_per_volume"} for row in found["rows"]]


def test_sweep(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def sweep(*arguments: str, config: str = "stage2.yaml") -> int:
        return call(monkeypatch, STAGE2, "sweep", "--config", config, *FEW, *arguments)

    assert sweep(*GRID, *ORDERS) == 0
    folder = trained / "two" / "sweep"
    found = record(folder)
    settings = {(row["sampler"]["steps"], row["sampler"]["order"]) for row in found["rows"]}
    assert settings == {(n, order) for n in (2, 3) for order in ("confidence", "halton")}
    assert {row["sampler"]["temperature"] for row in found["rows"]} == {0.5}
    assert found["real"] == "adrenalmnist3d/val"

    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    distances = [float(row["frechet"]) for row in rows]
    assert distances == sorted(distances)
    assert [row["winner"] for row in rows].count("True") == 1
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")

    # The preset is a section that a configuration can take as it is.
    preset = yaml.safe_load((folder / "preset.yaml").read_text())
    best = next(row for row in rows if row["winner"] == "True")
    assert preset["sampler"]["steps"] == int(best["steps"])
    stage2 = yaml.safe_load((trained / "stage2.yaml").read_text()) | preset
    (trained / "again.yaml").write_text(yaml.safe_dump(stage2))
    assert load_stage2(trained / "again.yaml", []).sampler.steps == int(best["steps"])

    # The same seed gives the same figures; another seed other ones.
    assert sweep(*GRID, *ORDERS, "--output", "twice") == 0
    assert without_times(record(trained / "twice")) == without_times(found)
    assert sweep(*GRID, *ORDERS, "--output", "other", "--seed", "1") == 0
    assert without_times(record(trained / "other")) != without_times(found)

    # More settings: what is there is not drawn again.
    capsys.readouterr()
    assert sweep(*GRID, *ORDERS, "--steps=4") == 0
    assert "4 settings are there already" in capsys.readouterr().err
    longer = record(folder)
    assert [row for row in longer["rows"] if row["sampler"]["steps"] < 4] == found["rows"]
    assert len(longer["rows"]) == 6

    # Another number of volumes is another sweep.
    assert sweep(*GRID, "--num-samples", "3") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert record(folder) == longer


@pytest.mark.parametrize(
    ("option", "sentence"),
    [("--order=spiral", "spiral"), ("--steps=0", "steps"), ("--temperature=-1", "temperature")],
)
def test_settings_that_cannot_be(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    option: str,
    sentence: str,
) -> None:
    write_configs(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, STAGE2, "sweep", "--config", "stage2.yaml", option) == 2
    shown = capsys.readouterr()
    assert sentence in shown.err + shown.out
    assert "Traceback" not in shown.err


def test_noise_on_confidences_is_not_swept_in_halton_order(make: Callable[..., Any]) -> None:
    found = make(order=["confidence", "halton"], choice_temperature=[1.0, 4.0])
    assert [(s.order, s.choice_temperature) for s in found] == [
        ("confidence", 1.0),
        ("confidence", 4.0),
        ("halton", 4.5),
    ]


def test_what_is_left_out_stays(make: Callable[..., Any]) -> None:
    (only,) = make()
    assert (only.steps, only.temperature) == (7, 0.3)


@pytest.fixture
def make() -> Callable[..., Any]:
    from prod9.config import SamplerConfig
    from prod9.evaluation.sweep import grid_of

    def made(**given: Any) -> list[SamplerConfig]:
        return grid_of(SamplerConfig(steps=7, temperature=0.3), given)

    return made
