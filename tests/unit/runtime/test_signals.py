"""A signal is noted, not obeyed at once; the second Ctrl-C is."""

import os
import signal
from pathlib import Path

import pytest
import torch

from prod9.runtime import distributed
from prod9.runtime import signals as signals_module
from prod9.runtime.signals import STOPPING, Stopped, StopSignals, requeue


@pytest.fixture
def signals() -> object:
    before = {number: signal.getsignal(number) for number in STOPPING}
    listener = StopSignals()
    with listener.listening():
        yield listener
    assert {number: signal.getsignal(number) for number in STOPPING} == before


@pytest.mark.parametrize("number", STOPPING)
def test_it_is_noted(signals: StopSignals, number: int) -> None:
    assert signals.agreed() == 0
    signal.raise_signal(number)
    assert signals.agreed() == number
    signal.raise_signal(signal.SIGTERM)  # the first one counts
    assert signals.agreed() == number


def test_the_second_ctrl_c_ends_at_once(signals: StopSignals) -> None:
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Stopped) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.exit_code == 130


def test_one_process_alone_is_enough(signals: StopSignals, monkeypatch: pytest.MonkeyPatch) -> None:
    other = torch.tensor([float(number == signal.SIGUSR1) for number in STOPPING])
    monkeypatch.setattr(signals_module, "world_size", lambda: 2)
    monkeypatch.setattr(distributed, "total", lambda own: own + other)
    assert signals.received == 0
    assert signals.agreed() == signal.SIGUSR1


def test_exit_codes() -> None:
    codes = [Stopped(n).exit_code for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    assert codes == [130, 143, 143]


def scheduler(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> Path:
    """Put a program ``scontrol`` first in the path; it notes its arguments."""
    program, noted = folder / "scontrol", folder / "noted"
    program.write_text(f'#!/bin/sh\necho "$@" >> {noted}\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return noted


def test_a_job_goes_back_into_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = scheduler(tmp_path, monkeypatch, 0)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert not requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    assert requeue()
    assert noted.read_text() == "requeue 123\n"
    monkeypatch.setattr(signals_module, "is_main", lambda: False)  # once is enough
    assert requeue()
    assert noted.read_text() == "requeue 123\n"


def test_a_job_that_cannot_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler(tmp_path, monkeypatch, 1)
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    assert not requeue()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert not requeue()
