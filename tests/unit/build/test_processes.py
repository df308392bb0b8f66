"""Who has started the processes of a run, and whether that is what was asked for."""

import signal
import sys

import pytest

from prod9.build import failures, launch, processes
from prod9.build.processes import Place, placed, wanted
from prod9.config import TrainerConfig
from prod9.errors import UserError

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
    monkeypatch.setattr(processes.os, "environ", environment)
    place = placed(environment)
    assert place is not None
    processes._speak_as_torchrun(place)
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
    with pytest.raises(UserError, match=r"has started 16 processes.*trainer\.devices=auto"):
        processes._require_agreement(config(**settings), place)


def test_several_devices_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "placed", lambda: None)
    with pytest.raises(UserError, match="ask for 2 processes, but there is one"):
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


def test_what_is_the_loss_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]")
    assert not failures.is_loss(error)  # alone
    monkeypatch.setattr(failures.ranks, "world_size", lambda: 2)
    assert failures.is_loss(error)
    assert not failures.is_loss(RuntimeError("shapes do not match"))
