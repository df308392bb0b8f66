"""Two processes with two samples each train as one with four, and end together."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from console_scripts import in_this_one
from distributed_runs import (
    SCRIPTS,
    SLACK,
    TORCHRUN,
    checkpoint,
    children,
    furthest,
    history,
    train,
    training,
    write_config,
)

LOSSES = 1e-5
"""Relative: sums are taken in another order."""
WEIGHTS = 2e-5
"""Absolute, after four steps of 1e-4: a fifth of one step."""
TWO = {"data__batch_size": 2, "trainer__devices": 2}
FOUR = {"data__batch_size": 4}


def train_here(stage: int, config: Path) -> None:
    """Train in this process, which need not start anew."""
    code, _, err = in_this_one(
        SCRIPTS[stage].name, "train", "--config", config, cwd=config.parent, env={}
    )
    assert code == 0, err


def assert_alike(one: Path, two: Path, *, losses: float = LOSSES, weights: float = WEIGHTS) -> None:
    expected, found = history(one), history(two)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if "grad_norm" not in name:
            assert found[name] == pytest.approx(values, rel=losses, abs=1e-7), name
    assert furthest(checkpoint(one)["state_dict"], checkpoint(two)["state_dict"]) < weights


def test_stage1_as_one_process(tmp_path: Path) -> None:
    # Discriminator and adaptive weight from the first step on.
    train_here(1, write_config(tmp_path, 1, "one", **FOUR))
    done = train(1, write_config(tmp_path, 1, "two", **TWO))
    assert done.returncode == 0, done.stderr
    values = history(tmp_path / "two")
    assert len(values["train/discriminator"]) == 4
    assert min(values["train/adaptive_weight"]) > 0
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert done.stderr.count("\ntokenizer ") == 1  # one writer, one speaker
    one, two = (
        torch.load(tmp_path / name / "tokenizer.pt", weights_only=True) for name in ("one", "two")
    )
    assert furthest(one, two) < WEIGHTS


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tokenizer."""
    folder = tmp_path_factory.mktemp("tokenized")
    path = folder / "tokenizer.pt"
    train_here(1, write_config(folder, 1, "first", autoencoder_export_path=str(path)))
    return folder


@pytest.fixture(scope="module")
def one(tokenized: Path) -> Path:
    """Return Stage 2 of one process."""
    train_here(2, write_config(tokenized, 2, "one", **FOUR))
    return tokenized / "one"


@pytest.mark.slow
@pytest.mark.ci
def test_stage2_as_one_process(tokenized: Path, one: Path) -> None:
    done = train(2, write_config(tokenized, 2, "two", **TWO))
    assert done.returncode == 0, done.stderr
    assert_alike(one, tokenized / "two")


@pytest.mark.slow
def test_stage2_with_split_weights(tokenized: Path, one: Path) -> None:
    done = train(2, write_config(tokenized, 2, "fsdp", trainer__strategy="fsdp", **TWO))
    assert done.returncode == 0, done.stderr
    assert_alike(one, tokenized / "fsdp")
    theirs, ours = (
        torch.load(folder / "transformer.pt", weights_only=True)
        for folder in (one, tokenized / "fsdp")
    )
    assert furthest(theirs, ours) < WEIGHTS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("fsdp", "one"),
        pytest.param("one", "fsdp", marks=pytest.mark.ci),
        pytest.param("ddp", "one", marks=pytest.mark.ci),
    ],
)
def test_a_run_goes_on_with_another_number_of_processes(
    tokenized: Path, one: Path, first: str, then: str
) -> None:
    def write(kind: str, epochs: int) -> Path:
        how: dict[str, Any] = FOUR if kind == "one" else {**TWO, "trainer__strategy": kind}
        name = f"{first}-{then}"
        return write_config(tokenized, 2, name, **how, trainer__max_epochs=epochs)

    assert train(2, write(first, 1)).returncode == 0
    done = train(2, write(then, 2), "--resume")
    assert done.returncode == 0, done.stderr
    folder = tokenized / f"{first}-{then}"
    assert furthest(checkpoint(one)["state_dict"], checkpoint(folder)["state_dict"]) < WEIGHTS
    optimizers = [checkpoint(path)["optimizer_states"][0]["state"] for path in (one, folder)]
    assert furthest(*optimizers) < WEIGHTS


@pytest.mark.slow
@pytest.mark.ci
def test_torchrun(tmp_path: Path) -> None:
    train_here(1, write_config(tmp_path, 1, "one", **FOUR))
    config = write_config(tmp_path, 1, "two", trainer__devices="auto")
    done = train(1, config, launcher=(*TORCHRUN, "2"))
    assert done.returncode == 0, done.stderr
    assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_srun(tmp_path: Path) -> None:
    train_here(1, write_config(tmp_path, 1, "one", **FOUR))
    config = write_config(tmp_path, 1, "two", trainer__devices="auto")
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_ID": "12345"}
    # Not two processes of one launcher: each is told by the environment alone who it is.
    script = (
        f"export SLURM_STEP_NODELIST=localhost {' '.join(f'{k}={v}' for k, v in step.items())}; "
        'SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & SLURM_PROCID=0 SLURM_LOCALID=0 "$@"; code=$?; '
        "wait $! && exit $code"
    )
    done = train(1, config, launcher=("bash", "-c", script, "srun"))
    assert done.returncode == 0, done.stderr
    assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_another_number_of_processes_than_configured(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1, "run", trainer__devices=3)
    done = train(1, config, launcher=(*TORCHRUN, "2"))
    assert done.returncode != 0
    assert done.stderr.count("3 processes, but there are 2") == 1
    assert "trainer.devices=3" in done.stderr


def wait_until_ended(ranks: dict[int, int]) -> None:
    until = time.monotonic() + SLACK
    while any(alive(pid) for pid in ranks.values()):
        assert time.monotonic() < until
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended may wait for its parent, or init, to read so."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all_and_one_goes_on(tmp_path: Path, victim: int) -> None:
    many = {"trainer__max_epochs": 500, "callbacks__checkpoint__every_n_epochs": 1}
    config = write_config(tmp_path, 1, "run", **TWO, **many)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with training(1, config) as process:
        until = time.monotonic() + SLACK
        while not last.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        ranks = children(process)
        assert ranks.keys() == {0, 1}
        os.kill(ranks[victim], signal.SIGKILL)
        _, told = process.communicate(timeout=SLACK)
        assert process.returncode == 128 + signal.SIGKILL
        assert f"error: process {victim} of 2 was ended by SIGKILL" in told
        assert "--resume" in told
        assert told.count("error:") == 1
        assert "Traceback" not in told
    wait_until_ended(ranks)
    done_before = int(checkpoint(tmp_path / "run")["epoch"]) + 1
    more = {"trainer__max_epochs": done_before + 2}
    done = train(1, write_config(tmp_path, 1, "run", **FOUR, **more), "--resume")
    assert done.returncode == 0, done.stderr
    assert int(checkpoint(tmp_path / "run")["epoch"]) == done_before + 1


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1, "run", **TWO, trainer__max_epochs=500)
    with training(1, config) as process:
        until = time.monotonic() + SLACK
        while len(children(process)) < 2 or not (tmp_path / "run" / "config.yaml").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        ranks = children(process)
        process.kill()
        process.wait()
    wait_until_ended(ranks)


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1, "run", **TWO, trainer__precision="fp16")
    done = train(1, config)
    assert done.returncode == 2
    assert done.stderr.count("error: ") == 1
    assert "trainer.precision=fp16 needs a GPU" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_split_weights_are_for_stage2(tmp_path: Path) -> None:
    config = write_config(tmp_path, 1, "run", **TWO, trainer__strategy="fsdp")
    done = train(1, config)
    assert done.returncode == 2
    assert "trainer.strategy=fsdp cannot train Stage 1" in done.stderr
    assert done.stderr.count("error: ") == 1
