"""Which process of a run this one is, how prod9 starts the others, and how a run of two ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

from prod9.runtime import processes
from prod9.runtime.processes import Place, is_loss, loss_of_another, placed, speaks_first

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


SCRIPT = """
import os, signal, sys, time
from prod9.cli.run import guarded
from prod9.errors import Prod9Error
from prod9.runtime import processes

def work():
    if processes.placed() is None:
        processes.start_others(2, 29500)
    rank = processes.placed().rank
    print("started", rank, flush=True)
    {body}

guarded(work)()
"""


def run_two(tmp_path: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run ``body`` in two processes that do not meet."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(body=body))
    command = [sys.executable, str(script), "an argument"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("pass", 0, ""),
        ("rank and time.sleep(1)", 0, ""),  # process 0 waits for the other one
        ("sys.exit(7 * rank)", 7, ""),  # a process that ends by itself has said why
        ("raise Prod9Error('no data.')", 2, "error: no data.\n"),
        ("if rank == 0: raise Prod9Error('no data.')\n    time.sleep(50)", 2, "error: no data.\n"),
    ],
)
def test_how_a_run_of_two_ends(tmp_path: Path, body: str, code: int, told: str) -> None:
    done = run_two(tmp_path, body)
    assert (done.returncode, done.stderr) == (code, told)
    if code in (0, 7):  # else process 1 may be stopped before it prints
        assert sorted(done.stdout.splitlines()) == ["started 0", "started 1"]


def test_process_0_does_not_wait_for_a_dead_one(tmp_path: Path) -> None:
    body = (
        "processes._GRACE_SECONDS = 0.5\n"
        "    if rank: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    time.sleep(50)"
    )
    done = run_two(tmp_path, body)
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr.startswith("error: process 1 of 2 was ended by SIGKILL")


def test_the_others_end_with_process_0(tmp_path: Path) -> None:
    body = "open(str(os.getpid()), 'w')\n    rank or os.kill(os.getpid(), signal.SIGKILL)"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(body=body + "\n    time.sleep(50)"))
    done = subprocess.run([sys.executable, script, "x"], cwd=tmp_path, check=False, timeout=20)
    assert done.returncode == -signal.SIGKILL
    for pid in (path.name for path in tmp_path.iterdir() if path.name.isdigit()):
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"


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
def test_what_is_the_loss_of_another_process(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError(text)
    assert not is_loss(error)  # in a run of one process
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    assert is_loss(error)
    code, told = loss_of_another(error)
    assert code == processes.LOST
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
