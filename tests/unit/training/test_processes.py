"""How many processes a configuration asks for, and whether the launcher has started as many."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime import distributed
from prod9.runtime.processes import placed
from prod9.training import processes
from prod9.training.processes import join, wanted

TORCHRUN = {
    "RANK": "9",
    "WORLD_SIZE": "16",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "8",
    "MASTER_ADDR": "n0",
    "MASTER_PORT": "1",
}


def config(**settings: object) -> TrainerConfig:
    return TrainerConfig.model_validate({"accelerator": "cpu", **settings})


def launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)


def test_how_many_are_wanted() -> None:
    assert wanted(config()) == 1
    assert wanted(config(devices=4, num_nodes=2)) == 8
    assert wanted(config(devices="auto")) == 1  # a CPU is one device
    place = placed(TORCHRUN)
    assert wanted(config(devices="auto"), place) == 16
    assert wanted(config(devices="auto", num_nodes=3), place) == 24


@pytest.mark.parametrize("settings", [{"devices": 8}, {"devices": "auto", "num_nodes": 3}, {}])
def test_launcher_and_configuration_must_agree(
    settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch(monkeypatch)
    with pytest.raises(Prod9Error, match=r"there are 16; set trainer\.devices=auto"):
        join(config(**settings))


def test_every_process_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(Prod9Error, match=r"8 GPUs, but there are 1.*--gpus-per-node"):
        join(config(devices=8, num_nodes=2, accelerator="auto"))


def test_several_devices_need_a_launcher() -> None:
    with pytest.raises(Prod9Error, match="ask for 2 processes, but there are 1"):
        join(config(devices=2))
    join(config())  # alone


def test_no_more_processes_than_gpus_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(Prod9Error, match=r"trainer\.devices=4.*there are 2"):
        processes.gather(config(devices=4, accelerator="auto"))


SCRIPT = """
import os, signal, sys, time
from prod9.cli.run import guarded
from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime import distributed
from prod9.training import processes

def work():
    {before}
    processes.gather(TrainerConfig(devices=2, accelerator="cpu"))
    rank = distributed.rank()
    os.write(1, f"started {{rank}}\\n".encode())
    distributed.barrier()
    {after}
    distributed.barrier()

if __name__ == "__main__":
    guarded(work)()
"""


def run_two(tmp_path: Path, after: str) -> subprocess.CompletedProcess[str]:
    """Run ``after`` in two processes that this command starts."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(before="pass", after=after))
    command = [sys.executable, str(script), "an argument"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "code", "told"),
    [
        ("rank and time.sleep(1)", 0, ""),  # the command waits for both
        ("sys.exit(7 * rank)", 7, ""),  # a process that ends by itself has said why
        ("if rank == 0: raise Prod9Error('alone')", 2, "error: alone\n"),
        ("if rank == 1: raise Prod9Error('alone')", 2, "error: alone\n"),
        ("raise Prod9Error('both')", 2, "error: both\n"),
    ],
)
def test_how_a_run_of_two_ends(tmp_path: Path, after: str, code: int, told: str) -> None:
    done = run_two(tmp_path, after)
    assert (done.returncode, done.stderr) == (code, told)
    assert sorted(done.stdout.splitlines()) == ["started 0", "started 1"]


@pytest.mark.slow
def test_a_killed_process_ends_the_run(tmp_path: Path) -> None:
    done = run_two(tmp_path, "if rank: os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stderr.startswith("error: process 1 of 2 was ended by SIGKILL")
    assert done.stderr.count("error") == 1


def test_only_a_script_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(Prod9Error, match="console scripts, torchrun or srun"):
        processes.gather(config(devices=2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "culprit"), [("pass", 0), ("pass", 1), ("raise Prod9Error('alone')", 0)]
)
def test_the_same_of_srun(before: str, culprit: int) -> None:
    step = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    step |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
    step["SLURM_JOB_ID"] = str(os.getpid())
    alone = f"if rank == {culprit}: raise Prod9Error('alone')"
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(before=before, after=alone)],
            env={**step, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        told = [task.communicate(timeout=300)[1] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert "".join(told) == "error: alone\n"
    codes = [task.returncode for task in tasks]
    assert codes[culprit] == 2
    assert {*codes} <= {2, 75}


def test_all_wait_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_on: list[str] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(
        distributed.dist, "all_reduce", lambda value: waited_on.append(value.device.type)
    )
    distributed.barrier()
    assert waited_on == ["cpu"]
