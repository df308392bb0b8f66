"""Memory that runs out: recognised, and answered with what to lower and by how much."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.config import Stage1Config
from prod9.config.load import load_stage1
from prod9.errors import Prod9Error
from prod9.planning import out_of_memory
from prod9.planning.fake_steps import Rehearsed
from prod9.planning.fake_tensors import Setting
from prod9.planning.memory_estimate import GIB, Footprint, footprint
from prod9.planning.out_of_memory import Where, memory_advice, sentence, where

REAL_LIMIT = out_of_memory.limit_of
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


@pytest.fixture(autouse=True)
def a_gibibyte_and_a_tenth_each(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Take a step to need as much, which no rehearsal has to find out."""
    if request.node.get_closest_marker("slow"):
        return

    def rehearse(batch: int, checkpointing: bool) -> Rehearsed:
        held = GIB + GIB // 14 * batch // (2 if checkpointing else 1)  # times 1.4: a tenth
        return Rehearsed(batch, {}, GIB, held, {}, ())

    foot = Footprint(rehearse, Setting("cpu", "fp32"), checkpointing=False)
    monkeypatch.setattr(out_of_memory, "footprint", lambda *_, **__: foot)
    monkeypatch.setattr(out_of_memory, "limit_of", lambda place: 4 * GIB)


def test_a_training_is_told_by_how_much() -> None:
    text = sentence("host", config())
    # 4 GiB less 0.52 of libraries less 1: 2.48, a tenth each
    assert "lower data.batch_size from 64 to 24, " in text
    assert "set trainer.activation_checkpointing=true and data.batch_size=49" in text
    assert text.endswith("(estimated 7.9 GiB of 4.0 GiB)")


@pytest.mark.slow
def test_a_real_training_is_told_by_how_much(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = int(0.8 * GIB)
    monkeypatch.setattr(out_of_memory, "limit_of", lambda place: limit)
    text = sentence("host", config())
    found = re.search(r"lower data\.batch_size from 64 to (\d+),", text)
    assert found, text
    foot, lower = footprint(config(), "cpu"), int(found[1])
    assert foot.needed(lower) <= limit < foot.needed(lower + 2)
    assert text.endswith(f"(estimated {foot.needed(64) / GIB:.1f} GiB of 0.8 GiB)")


def test_where_others_took_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "limit_of", lambda place: 1 << 50)
    text = sentence("host", config())
    assert "lower data.batch_size from 64 to 32, or end other programs" in text
    assert "trainer.activation_checkpointing=true" in sentence("host", config(1))


def test_without_a_training() -> None:
    assert "lower data.batch_size" in sentence("host")
    assert "sliding_window.roi_size" in sentence("GPU")
    assert "data.num_workers" in sentence("worker")
    assert "/dev/shm" in sentence("shared")


def test_one_sentence_takes_the_error_s_place() -> None:
    wanted = r"lower data\.batch_size from 64 .* --resume"
    with pytest.raises(Prod9Error, match=wanted), memory_advice(config()):
        torch.empty(1 << 48)
    with pytest.raises(RuntimeError, match="shapes"), memory_advice(config()):
        raise RuntimeError("shapes do not match")
    with memory_advice(config()):
        pass


def test_the_limit_is_that_of_machine_and_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "available_memory", lambda: 123456789)
    assert REAL_LIMIT("host") == 123456789


def test_processes_of_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(out_of_memory, "limit_of", lambda place: 16 * GIB)
    monkeypatch.setattr(out_of_memory.processes, "on_this_machine", lambda: 4)
    monkeypatch.setattr(out_of_memory.distributed, "world_size", lambda: 8)
    asked: list[int] = []
    one = out_of_memory.footprint

    def count(*arguments: Any, devices: int) -> Footprint:
        asked.append(devices)
        return one(*arguments)

    monkeypatch.setattr(out_of_memory, "footprint", count)
    text = sentence("host", config())
    assert "lower data.batch_size from 64 to 24, " in text  # as in 4 GiB by itself
    assert text.endswith("(estimated 7.9 GiB of 4.0 GiB)")
    assert asked == [8]
    text = sentence("GPU", config(256))  # each has its own
    assert "of 16.0 GiB)" in text
