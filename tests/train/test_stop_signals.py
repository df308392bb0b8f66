"""SIGTERM, Ctrl-C and SLURM's warning while training: saved, said where, and gone on from."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from console_scripts import in_this_one
from toy_runs import Recorder, learned, logged, same, stage1_config

from prod9.runtime.signals import STOPPING
from prod9.training import last_checkpoint, stage1
from prod9.training.stage1_module import Stage1Module

COMMAND = "prod9-train-autoencoder"


pytestmark = pytest.mark.usefixtures("toy_data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    stage1.train(stage1_config(folder, trainer__limit_val_batches=3))
    return folder


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    assert {number: signal.getsignal(number) for number in STOPPING} == before


def write_config(folder: Path) -> Path:
    config = stage1_config(folder, trainer__limit_val_batches=3)
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def at(patch: pytest.MonkeyPatch, hook: str, epoch: int, batch: int, *numbers: int) -> None:
    """Send signals to this process within a step of the module."""
    real = getattr(Stage1Module, hook)

    def step(this: Any, data: Any, index: int) -> Any:
        if (this.current_epoch, index) == (epoch, batch):
            for number in numbers:
                signal.raise_signal(number)
        return real(this, data, index)

    patch.setattr(Stage1Module, hook, step)


def train(folder: Path, *options: str) -> tuple[int, str]:
    code, _, err = in_this_one(
        COMMAND, "train", "--config", write_config(folder), *options, cwd=folder, env={}
    )
    assert "Traceback" not in err
    return code, err


def check_resumed(folder: Path, whole: Path, *options: str) -> None:
    code, err = train(folder, *(options or ("--resume",)))
    assert code == 0, err
    assert same(learned(folder), learned(whole))
    assert logged(folder) == logged(whole)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 143, marks=pytest.mark.slow),
    ],
)
def test_the_step_is_finished_and_saved(
    tmp_path: Path, whole: Path, number: signal.Signals, code: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SLURM_JOB_ID", raising=False)
        at(patch, "training_step", 1, 1, number)
        left, err = train(tmp_path)
    assert left == code
    where = tmp_path / "checkpoints" / "last.ckpt"
    text = f"stopped by {number.name} in epoch 2 after batch 2, all of it saved in {where}; "
    assert text in err
    assert "--resume" in err
    check_resumed(tmp_path, whole)


@pytest.mark.parametrize("batch", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_validation_is_not_waited_for_and_done_again(
    tmp_path: Path, whole: Path, batch: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at(patch, "validation_step", 1, batch, signal.SIGTERM)
        code, err = train(tmp_path)
    assert (code, "in epoch 2 after batch 3" in err) == (143, True)
    check_resumed(tmp_path, whole)


@pytest.mark.slow
def test_in_the_last_batch_of_a_validation(tmp_path: Path, whole: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at(patch, "validation_step", 1, 2, signal.SIGTERM)
        code, err = train(tmp_path)
    assert (code, "stopped by SIGTERM after epoch 2" in err) == (143, True)
    check_resumed(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.ci
def test_stopped_twice(tmp_path: Path, whole: Path) -> None:
    for batch, options in ((1, ()), (2, ("--resume",))):
        with pytest.MonkeyPatch.context() as patch:
            at(patch, "training_step", 1, batch, signal.SIGTERM)
            assert train(tmp_path, *options)[0] == 143
    check_resumed(tmp_path, whole)


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, whole: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at(patch, "training_step", 1, 1, signal.SIGINT, signal.SIGINT)
        code, err = train(tmp_path)
    assert code == 130
    assert "interrupted; training continues from its last checkpoint with --resume." in err
    check_resumed(tmp_path, whole)


def on(patch: pytest.MonkeyPatch, owner: type, hook: str) -> None:
    """Send SIGTERM to this process as a hook begins."""
    real = getattr(owner, hook)

    def begun(this: Any, *args: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return real(this, *args)

    patch.setattr(owner, hook, begun)


def test_between_the_start_and_the_first_step(tmp_path: Path) -> None:
    """Lightning has a handler of its own there, if it is let."""
    with pytest.MonkeyPatch.context() as patch:
        on(patch, last_checkpoint.LastCheckpoint, "on_train_start")
        code, err = train(tmp_path)
    assert (code, "stopped by SIGTERM in epoch 1 after batch 1" in err) == (143, True)


def test_after_the_last_step_what_was_learned_is_exported(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        on(patch, Stage1Module, "on_fit_end")
        code, err = train(tmp_path)
    assert code == 0, err
    assert "tokenizer" in err.splitlines()[-1]


def test_before_the_first_step_nothing_hangs(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1, "build_module", lambda config: signal.raise_signal(signal.SIGTERM))
        code, err = train(tmp_path)
    assert code == 143
    assert "interrupted; training continues" in err


@pytest.mark.parametrize(("answer", "code"), [(0, 0), pytest.param(1, 143, marks=pytest.mark.slow)])
def test_slurms_warning_puts_the_job_back_into_the_queue(
    tmp_path: Path, whole: Path, answer: int, code: int
) -> None:
    program, noted = tmp_path / "scontrol", tmp_path / "noted"
    program.write_text(f'#!/bin/sh\necho "$@" > {noted}\nexit {answer}\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", "77")
        patch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        at(patch, "training_step", 1, 1, signal.SIGUSR1)
        # The same line of the job script before and after.
        left, err = train(tmp_path, "--resume-or-start")
    assert left == code
    assert noted.read_text() == "requeue 77\n"
    assert ("this job is back in the queue" in err) == (answer == 0)
    check_resumed(tmp_path, whole, "--resume-or-start")


def test_going_on_and_beginning_anew_are_two_things(tmp_path: Path) -> None:
    code, err = train(tmp_path, "--resume-or-start", "--overwrite")
    assert (code, "--resume-or-start goes on and --overwrite begins anew" in err) == (2, True)


@pytest.mark.slow
def test_each_step_is_seeded_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generators that all share are seeded for each step with its number."""
    seeded: list[tuple[int, int, int]] = []
    monkeypatch.setattr(last_checkpoint, "seed_step", lambda *key: seeded.append(key))
    recorder = Recorder(Stage1Module, monkeypatch)
    stage1.train(stage1_config(tmp_path, seed=5))
    assert seeded == [(5, step, 0) for step in range(len(recorder.log))]
    assert len(seeded) == 9
