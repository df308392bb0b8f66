"""Which process of a run this one is, and what it says when it loses another one."""

import os

import pytest
import torch.distributed as dist

from prod9.runtime import processes
from prod9.runtime.processes import Place, is_loss, loss_message, placed, speaks_first

TORCHRUN = {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}
# What `srun --nodes=2 --ntasks-per-node=4` sets (srun's manual, OUTPUT ENVIRONMENT VARIABLES).
SRUN = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "6",
    "SLURM_LOCALID": "2",
    "SLURM_NTASKS": "8",
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(processes, "_store", [])


def test_torchrun_is_recognised() -> None:
    place = placed(TORCHRUN)
    assert place == Place(rank=9, world_size=16, local_rank=1, per_node=8)


def test_srun_is_recognised_but_not_a_batch_script() -> None:
    place = placed(SRUN)
    assert place == Place(rank=6, world_size=8, local_rank=2, per_node=4)
    batch = {k: v for k, v in SRUN.items() if "STEP" not in k} | {"SLURM_PROCID": "0"}
    assert placed(batch) is None


def test_one_process_is_no_distributed_run() -> None:
    assert placed({}) is None
    assert placed({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) is None


def test_one_process_says_why_a_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert speaks_first()
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    assert not speaks_first()  # before they have met: the first of each machine
    monkeypatch.setenv("SLURM_LOCALID", "0")
    assert speaks_first()
    processes.share_store(dist.HashStore())
    assert [speaks_first() for _ in range(3)] == [True, False, False]


LOSSES = [
    "[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:5\nand more",
    "[gloo/transport/tcp/pair.cc:525] Read error [127.0.0.1]:5: Connection reset by peer",
    "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 60000ms for recv operation",
    "NCCL error: ncclRemoteError: A call failed possibly due to a network error or a remote process"
    " exiting prematurely.",
]


@pytest.mark.parametrize("text", LOSSES)
def test_what_is_the_loss_message_process(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError(text)
    assert not is_loss(error)  # in a run of one process
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    assert is_loss(error)
    told = loss_message(error)
    assert f"({text.splitlines()[0]})" in told
    assert "--resume" in told
    assert "and more" not in told


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not match"),
        RuntimeError("[enforce fail at gloo/allreduce.h:44] inputs.size() > 0"),
        dist.DistBackendError("NCCL error: unhandled cuda error, NCCL version 2.27.5"),
        dist.DistBackendError("ncclInvalidUsage: Duplicate GPU detected : rank 0 and rank 1"),
        TimeoutError("reading the scan timed out"),
    ],
)
def test_what_is_not(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    assert not is_loss(error)


def test_variables_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(os, "environ", environment)
    place = Place(rank=6, world_size=8, local_rank=2, per_node=4)
    processes.set_environment(place)
    assert placed(environment) == place
    assert environment["GROUP_RANK"] == "1"
