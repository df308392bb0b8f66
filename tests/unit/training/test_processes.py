"""Who has started the processes of a run, and whether that is what was asked for."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from prod9.config import TrainerConfig
from prod9.errors import Prod9Error
from prod9.runtime import distributed
from prod9.runtime.launcher_env import Place, placed, speak_as_torchrun
from prod9.training import failures, launch, processes
from prod9.training.processes import wanted

TORCHRUN = {
    "RANK": "9",
    "WORLD_SIZE": "16",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "8",
    "MASTER_ADDR": "n0",
    "MASTER_PORT": "1",
}
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


def config(**settings: object) -> TrainerConfig:
    return TrainerConfig.model_validate({"accelerator": "cpu", **settings})


def test_torchrun_is_recognised() -> None:
    place = placed(TORCHRUN)
    assert place == Place("torchrun", rank=9, world_size=16, local_rank=1, per_node=8)
    assert place.num_nodes == 2


def test_srun_is_recognised_but_not_a_batch_script() -> None:
    place = placed(SRUN)
    assert place == Place("srun", rank=6, world_size=8, local_rank=2, per_node=4)
    assert place.num_nodes == 2
    batch = {k: v for k, v in SRUN.items() if "STEP" not in k} | {"SLURM_PROCID": "0"}
    assert placed(batch) is None


def test_one_process_is_no_distributed_run() -> None:
    assert placed({}) is None
    assert placed({**TORCHRUN, "WORLD_SIZE": "1", "RANK": "0"}) is None


def test_srun_speaks_as_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    environment = dict(SRUN)
    monkeypatch.setattr(os, "environ", environment)
    place = placed(environment)
    assert place is not None
    speak_as_torchrun(place)
    assert environment["MASTER_ADDR"] == "gpu07"
    assert environment["MASTER_PORT"] == str(15000 + 4567)
    assert placed(environment) == Place("torchrun", 6, 8, 2, 4)
    assert environment["GROUP_RANK"] == "1"


def test_how_many_are_wanted() -> None:
    assert wanted(config()) == 1
    assert wanted(config(devices=4, num_nodes=2)) == 8
    assert wanted(config(devices="auto")) == 1  # a CPU is one device
    place = placed(TORCHRUN)
    assert wanted(config(devices="auto"), place) == 16
    assert wanted(config(devices="auto", num_nodes=3), place) == 24


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"devices": "auto"}, True),
        ({"devices": 8, "num_nodes": 2}, True),
        ({"devices": 8}, False),
        ({"devices": "auto", "num_nodes": 3}, False),
        ({}, False),
    ],
)
def test_launcher_and_configuration_must_agree(settings: dict[str, object], fits: bool) -> None:
    place = placed(TORCHRUN)
    assert place is not None
    if fits:
        processes._require_agreement(config(**settings), place)
        return
    with pytest.raises(Prod9Error, match=r"has started 16 processes.*trainer\.devices=auto"):
        processes._require_agreement(config(**settings), place)


def test_several_devices_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "placed", lambda: None)
    with pytest.raises(Prod9Error, match="ask for 2 processes, but there is one"):
        processes.join(config(devices=2))
    processes.join(config())  # alone


def ending(body: str) -> list[str]:
    return [
        sys.executable,
        "-c",
        f"import os, signal, sys, time; rank = os.environ['RANK']; {body}",
    ]


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        ("pass", 0, ""),
        # Says so itself; the others' quiet end is no news.
        ("sys.exit(2 if rank == '1' else 75)", 2, ""),
        ("sys.exit(143)", 143, ""),
        ("sys.exit(3 if rank == '0' else 75)", 3, "process 0 of 2 ended with exit code 3"),
        # Who is to blame is given the time to save, though the other one has left.
        ("rank == '1' and time.sleep(1.5); sys.exit(143 if rank == '1' else 75)", 143, ""),
        # The other one would wait for ever.
        (
            "rank == '1' and os.kill(os.getpid(), signal.SIGKILL); time.sleep(60)",
            128 + signal.SIGKILL,
            "process 1 of 2 was ended by SIGKILL",
        ),
    ],
)
def test_how_a_run_of_two_ends(
    body: str,
    code: int,
    told: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.5)
    assert launch.launch(ending(body), 2) == code
    err = capfd.readouterr().err
    assert told in err
    assert bool(told) == bool(err)


def test_signals_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    body = (
        "signal.signal(signal.SIGTERM, lambda *a: (print(rank, flush=True), sys.exit(143)));"
        "rank == '0' and (time.sleep(0.5), os.kill(os.getppid(), signal.SIGTERM)); time.sleep(60)"
    )
    assert launch.launch(ending(body), 2) == 143
    assert sorted(capfd.readouterr().out.split()) == ["0", "1"]


# --- one mistake, one voice ---------------------------------------------------------------------

JOINING = """
from prod9.training import processes
from prod9.cli.run import guarded
from prod9.config import TrainerConfig
from prod9.errors import Prod9Error

def work():
    {first}
    processes.join(TrainerConfig(devices=2, accelerator="{accelerator}"))

guarded(work)()
"""
ONE_GPU = "processes._gpus = lambda config: 1"


def test_a_fault_of_one_is_seen_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_gpus", lambda config: 1)  # process 1 has none
    store = dist.HashStore()

    def met(rank: int) -> str:
        try:
            place = Place("srun", rank, world_size=2, local_rank=rank, per_node=2)
            processes._find_no_fault(store, config(devices=2), place)
        except Prod9Error as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(met, range(2))
    assert first == second
    assert first.startswith("process 1 of this machine sees 1 GPU; ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "told"),
    [
        (ONE_GPU, "error: process 1 of this machine sees 1 GPU; "),
        # Before they have met.
        ("if os.environ['RANK'] == '1': raise Prod9Error('alone')", "error: alone\n"),
    ],
)
def test_what_is_wrong_with_one_of_two_is_told_once(
    first: str, told: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_GRACE_OF_THE_ORDERLY_SECONDS", 3.0)
    script = "import os\n" + JOINING.format(first=first, accelerator="cpu")
    assert launch.launch([sys.executable, "-c", script], 2) == 2
    err = capfd.readouterr().err
    assert err.startswith(told)
    assert (err.count("error:"), "Traceback" in err) == (1, False)


def srun(script: str, ranks: Sequence[str] = ("0", "1")) -> list[str]:
    """Run a script as some of two tasks of srun, which all end with code 2; what each says."""
    step = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    step |= {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
    step["SLURM_JOB_ID"] = str(os.getpid())
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**step, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]
    try:
        told = [task.communicate(timeout=300)[1] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [2] * len(tasks)
    assert "Traceback" not in "".join(told)
    return told


@pytest.mark.slow
def test_the_same_of_srun() -> None:
    told = "".join(srun(JOINING.format(first=ONE_GPU, accelerator="cpu")))
    assert told.count("error:") == told.count("error: process 1 of this machine sees 1 GPU; ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("where", ["'1'", "'0'", "'01'"])
def test_a_fault_before_they_meet_is_told_once(where: str) -> None:
    """And nobody waits for the others."""
    first = f"if os.environ['SLURM_PROCID'] in {where}: raise Prod9Error('alone')"
    told = srun("import os\n" + JOINING.format(first=first, accelerator="cpu"))
    assert sum(text.count("error:") for text in told) == 1
    assert [text.count("error: alone\n") for text in told] in ([0, 1], [1, 0])


@pytest.mark.slow
def test_who_finds_nobody_says_which_it_is() -> None:
    first = "failures._LAST_CALL = timedelta(seconds=1); raise Prod9Error('alone')"
    script = "from datetime import timedelta\nfrom prod9.training import failures\n" + JOINING
    (told,) = srun(script.format(first=first, accelerator="cpu"), ranks=["1"])
    assert told.splitlines()[-1] == "error: process 1 of 2: alone"


def test_what_is_said_before_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment alone: without a store, with one, and after another has spoken."""
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in SRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(failures, "_store", lambda: None)
    assert failures.of_fault("no data.") == "error: process 6 of 8: no data."
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert failures.of_fault("no data.") == "error: no data."
    store = dist.HashStore()
    monkeypatch.setattr(failures, "_store", lambda: store)
    monkeypatch.setenv("SLURM_PROCID", "6")
    assert failures.of_fault("no data.") == "error: no data."
    assert store.get(failures.fault_of(6)) == b"no data."
    monkeypatch.setenv("SLURM_PROCID", "7")
    assert failures.of_fault("no disk.") == ""
    assert store.get(failures.fault_of(7)) == b"no disk."


def test_no_more_processes_than_gpus_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch, "launch", lambda command, count: 17)
    with pytest.raises(Prod9Error, match=r"trainer\.devices=4, but this machine has 2 GPUs"):
        launch.gather(config(devices=4, accelerator="auto"))
    for settings in ({"devices": 2, "accelerator": "auto"}, {"devices": 4}):
        with pytest.raises(SystemExit, match="17"):
            launch.gather(config(**settings))


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
    assert not failures.is_loss(error)  # alone
    monkeypatch.setattr(failures.distributed, "world_size", lambda: 2)
    assert failures.is_loss(error)
    monkeypatch.delenv(failures.LAUNCHED, raising=False)
    said = failures.of_loss(error)
    assert said.startswith("error: another process of this run has ended")
    assert f"({text.splitlines()[0]})" in said
    assert "and more" not in said
    # The launcher says the rest.
    monkeypatch.setenv(failures.LAUNCHED, "1")
    assert failures.of_loss(error) == f"process 0 noticed: {text.splitlines()[0]}"


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
    monkeypatch.setattr(failures.distributed, "world_size", lambda: 2)
    assert not failures.is_loss(error)


def test_gpus_wait_for_minutes_and_the_rest_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    set_for: dict[str, float] = {}

    class Group:
        WORLD: object

        def _get_backend(self, device: torch.device) -> object:
            def note(patience: timedelta) -> None:
                set_for[device.type] = patience.total_seconds()

            return SimpleNamespace(_set_default_timeout=note)

    Group.WORLD = Group()
    monkeypatch.setattr(processes.dist, "group", Group)
    processes._wait_less_for_gpus()
    assert set_for == {"cuda": 1800.0}
    assert processes.PATIENCE.total_seconds() == 86400


def test_all_wait_without_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited_on: list[str] = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    monkeypatch.setattr(
        distributed.dist, "all_reduce", lambda value: waited_on.append(value.device.type)
    )
    distributed.barrier()
    assert waited_on == ["cpu"]
