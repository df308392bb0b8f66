import itertools
import time
from pathlib import Path

import pytest
import torch

import prod9
from prod9.cli.doctor import findings


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock comes a sixteenth of a second after the last."""
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) / 16)


def test_rates_are_work_over_time(ticks: None) -> None:
    speed = prod9.machine_speed("cpu")
    assert speed.matmul == pytest.approx(2 * 1024**3 * 16 / 1e9)
    assert speed.conv3d == pytest.approx(2 * 27 * 96 * 96 * 8 * 14**3 * 16 / 1e9)
    assert speed.copy == pytest.approx(2 * 64 * 2**20 * 16 / 1e9)
    assert speed.instructions.startswith(torch.backends.cpu.get_cpu_capability())
    assert speed.demo_seconds == pytest.approx(134e12 / (speed.conv3d * 1e9))


def test_doctor_says_the_same(ticks: None, tmp_path: Path) -> None:
    rows = dict(findings(tmp_path))
    assert rows["matrix product"].startswith("34 GFLOP/s")
    assert rows["conv3d"].startswith("175 GFLOP/s")
    assert rows["copy"].startswith("2.1 GB/s")
    if not torch.cuda.is_available():
        assert rows["prod9 demo"] == "takes about 12.8 min here"


def test_random_numbers_stay_as_they_were() -> None:
    before = torch.get_rng_state()
    prod9.machine_speed("cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(prod9.Prod9Error, match="this machine has none"):
        prod9.machine_speed("gpu")
