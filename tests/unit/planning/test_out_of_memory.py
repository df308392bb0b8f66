"""Memory that runs out: recognised, and answered with what to lower and by how much."""

from pathlib import Path

import pytest
import torch

from prod9.config import Stage1Config
from prod9.config.load import load_stage1
from prod9.errors import Prod9Error
from prod9.planning import out_of_memory
from prod9.planning.fake_step import StepCost
from prod9.planning.memory import GIB, Estimate, Memory
from prod9.planning.out_of_memory import Where, memory_advice, sentence, where

BUS = "Bus error. It is possible that dataloader's workers are out of shared memory."
KILLED = "DataLoader worker (pid 1234) is killed by signal: Killed. "
GONE = "DataLoader worker (pid(s) 12, 13) exited unexpectedly"
HOST = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
HOST += "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (MemoryError(), "host"),
        (RuntimeError(HOST), "host"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8"), "host"),
        (OSError(12, "Cannot allocate memory"), "host"),
        (torch.OutOfMemoryError("CUDA out of memory."), "GPU"),
        (RuntimeError("CUDA error: out of memory"), "GPU"),
        (RuntimeError(KILLED), "worker"),
        (RuntimeError(GONE), "worker"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Aborted."), "worker"),
        (RuntimeError(f"DataLoader worker (pid 3) is killed by signal: {BUS}"), "shared"),
        (RuntimeError("shapes do not match"), None),
        (OSError(28, "No space left on device"), None),
        (ValueError("not enough memory"), None),
    ],
)
def test_recognised(error: BaseException, place: Where | None) -> None:
    assert where(error) == place


def test_what_pytorch_raises_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 48)
    assert where(caught.value) == "host"


def config(batch: int = 64) -> Stage1Config:
    overrides = [f"data.batch_size={batch}", "data.size=28", "model.autoencoder.stem_stride=2"]
    return load_stage1(Path("maskgit/medmnist3d/stage1/ffl.yaml"), overrides)


@pytest.fixture
def four_gibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a step need one GiB and a tenth for each sample, on a machine with four."""
    memory = {False: Memory(GIB, GIB / 10), True: Memory(GIB, GIB / 20)}
    found = Estimate(StepCost({}, 0, 0, (0.0, 0.0)), 2, memory)
    monkeypatch.setattr(out_of_memory, "estimate_step", lambda *_: found)
    monkeypatch.setattr(out_of_memory, "available_memory", lambda: int(4.07 * GIB))


def told(batch: int = 64) -> str:
    with pytest.raises(Prod9Error) as caught, memory_advice(config(batch)):
        torch.empty(1 << 48)
    return str(caught.value)


@pytest.mark.usefixtures("four_gibibytes")
def test_a_training_is_told_by_how_much() -> None:
    text = told()
    assert "lower data.batch_size from 64 to 30, " in text
    assert "set trainer.activation_checkpointing=true and data.batch_size=61" in text
    assert "estimated 7.4 GiB of 4.1 GiB" in text
    assert "--resume" in text


@pytest.mark.usefixtures("four_gibibytes")
def test_processes_of_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "on_this_machine", lambda: 2)
    assert "lower data.batch_size from 64 to 10, " in told()


@pytest.mark.usefixtures("four_gibibytes")
def test_where_others_took_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "available_memory", lambda: 1 << 50)
    assert "lower data.batch_size from 64 to 32, or end other programs" in told()
    assert "trainer.activation_checkpointing=true" in told(1)


def test_without_a_training() -> None:
    assert "lower data.batch_size" in sentence("host")
    assert "sliding_window.roi_size" in sentence("GPU")
    assert "data.num_workers" in sentence("worker")
    assert "/dev/shm" in sentence("shared")


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_advice(config()):
        raise RuntimeError("shapes do not match")
    with memory_advice(config()):
        pass
