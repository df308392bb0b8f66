"""The comparison of two records: what is equal, what is not, and what the exit code says."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.same_numbers import arrays_entry, export_entry, history_entries, main
from benchmarks.small_demos import model_commands

LOSSES = (1.5, 0.1, float("nan"))


@pytest.fixture
def record() -> dict[str, Any]:
    return {
        "commit": "0123abc",
        "machine": {"processor": "this one", "threads": 1},
        "entries": {
            "loss": {"values": [value.hex() for value in LOSSES]},
            "volumes": arrays_entry([np.zeros((2, 2), np.uint8), np.ones((2, 2), np.uint8)]),
        },
    }


def compared(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> int:
    for name, content in (("old", old), ("new", new)):
        (tmp_path / name).write_text(json.dumps(content))
    return main(["compare", str(tmp_path / "old"), str(tmp_path / "new")])


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Return what was printed of each entry, by its name."""
    found = (line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:-1])
    return {rest.partition(":")[0]: f"{state} {rest}" for state, rest in found}


def test_equal_records(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(tmp_path, record, record) == 0
    assert {line.split()[0] for line in lines(capsys).values()} == {"equal"}


def test_the_last_bit_of_a_loss_counts(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = copy.deepcopy(record)
    new["entries"]["loss"]["values"][0] = float(np.nextafter(1.5, 2)).hex()
    assert compared(tmp_path, record, new) == 1
    found = lines(capsys)
    assert found["loss"].startswith("different")
    assert "2.22e-16" in found["loss"]
    assert found["volumes"].startswith("equal")


def test_a_voxel_counts(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = copy.deepcopy(record)
    changed = np.array([[0, 0], [0, 4]], np.uint8)
    new["entries"]["volumes"] = arrays_entry([changed, np.ones((2, 2), np.uint8)])
    assert compared(tmp_path, record, new) == 1
    found = lines(capsys)["volumes"]
    assert "1 of 2 arrays" in found
    assert "1.73" in found  # the deviation of (0, 0, 0, 4) is sqrt(3), its mean 1


def test_the_order_of_equal_statistics_counts(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = copy.deepcopy(record), copy.deepcopy(record)
    for each, voxels in ((old, [0, 1]), (new, [1, 0])):
        each["entries"]["volumes"] = arrays_entry([np.array(voxels, np.uint8)])
    assert compared(tmp_path, old, new) == 1
    assert lines(capsys)["volumes"].startswith("different")


def test_missing_entries_count_and_new_ones_do_not(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    less = copy.deepcopy(record)
    del less["entries"]["loss"]
    assert compared(tmp_path, record, less) == 1
    assert lines(capsys)["loss"].startswith("missing")
    assert compared(tmp_path, less, record) == 0
    assert lines(capsys)["loss"].startswith("new")


def test_fewer_values_differ(record: dict[str, Any], tmp_path: Path) -> None:
    new = copy.deepcopy(record)
    new["entries"]["loss"]["values"].pop()
    assert compared(tmp_path, record, new) == 1


def test_another_machine_is_told(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(tmp_path, record, record) == 0
    assert not capsys.readouterr().err
    assert compared(tmp_path, record, record | {"machine": {"processor": "another"}}) == 0
    assert "machine" in capsys.readouterr().err


def test_weights_are_known_by_content_and_not_by_name(tmp_path: Path) -> None:
    weights = {"encoder.a": torch.arange(3.0), "encoder.b": torch.ones(2, 2)}
    moved = {"net.z": weights["encoder.b"], "net.y": weights["encoder.a"]}
    changed = {"net.z": weights["encoder.b"], "net.y": torch.tensor([0.0, 2.0, 1.0])}
    entries: list[dict[str, list[str]]] = []
    for index, content in enumerate((weights, moved, changed)):
        torch.save({"kind": "x", "weights": content}, tmp_path / f"{index}.pt")
        entries.append(export_entry(tmp_path / f"{index}.pt"))
    assert entries[0] == entries[1]
    assert entries[0] != entries[2]


def test_history_keeps_every_digit(tmp_path: Path) -> None:
    loss = float(np.float32(0.1))
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "metrics.csv").write_text(
        f"step,train/loss,val/loss\n0,{loss!r},\n1,2.0,\n1,,3.0\n"
    )
    assert history_entries(tmp_path, "demo") == {
        "demo train/loss": {"values": [loss.hex(), (2.0).hex()]},
        "demo val/loss": {"values": [(3.0).hex()]},
    }


def test_committed_record_is_of_the_commands_of_today() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "same_numbers.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["commands"][-len(list(model_commands())) :] == [
        " ".join(command) for command in model_commands()
    ]
    for stage in ("regions stage1", "regions stage2", "brats stage1", "brats stage2"):
        assert len(content["entries"][f"{stage} train/loss"]["values"]) == 20
    for name, arrays in (("regions tokens", 3), ("brats tokens", 3), ("brats generated", 8)):
        assert len(content["entries"][name]["digests"]) == arrays
