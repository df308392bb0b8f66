"""A NaN in the middle of a run: found at the step, nothing learned from it, and what comes then."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from toy_runs import learned, logged, same, stage1_config, stage2_config

from prod9.errors import Prod9Error
from prod9.training import stage1, stage1_module, stage2
from prod9.training.checkpoint_files import read_last
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module

STEPS = 9
BAD = 4
"""The step, of nine, whose numbers are spoiled: the second of the second epoch."""


pytestmark = pytest.mark.usefixtures("toy_data")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    stage1.train(stage1_config(folder, trainer__max_epochs=1))
    return folder / "tokenizer.pt"


def state(module: pl.LightningModule) -> Any:
    """Return copies of all that a step changes: weights, their averages and count, moments."""
    weights = {k: v.clone() for k, v in module.state_dict().items()}
    moments = [
        {k: v.clone() for k, v in own.items()}
        for optimizer in module.trainer.optimizers
        for own in optimizer.state.values()
    ]
    return weights, moments


class Spoiler:
    """Spoils steps, and notes the state before and after each."""

    def __init__(self, patch: pytest.MonkeyPatch, kind: type[Any], steps: set[int]) -> None:
        self.before: list[Any] = []
        self.after: list[Any] = []
        self.names: list[list[str]] = []
        self.rates: list[list[float]] = []
        real = kind.training_step

        def step(this: Any, batch: Any, index: int) -> Any:
            number = this.trainer.fit_loop.total_batch_idx
            self.names.append(batch.names)
            self.before.append(state(this))
            self.rates.append([o.param_groups[0]["lr"] for o in this.trainer.optimizers])
            if number in steps and kind is Stage1Module:
                volumes = batch.volumes.clone()
                volumes[1, 0, 3, 3, 3] = float("nan")
                batch = batch._replace(volumes=volumes)
            result = real(this, batch, index)
            return result * float("nan") if number in steps and result is not None else result

        patch.setattr(kind, "training_step", step)
        follow = kind.on_train_batch_end

        def over(this: Any, *args: Any) -> None:
            follow(this, *args)
            self.after.append(state(this))

        patch.setattr(kind, "on_train_batch_end", over)


def run(folder: Path, tokenizer: Path, stage: int, steps: set[int], **settings: Any) -> Spoiler:
    with pytest.MonkeyPatch.context() as patch:
        spoiler = Spoiler(patch, Stage1Module if stage == 1 else Stage2Module, steps)
        if stage == 1:
            stage1.train(stage1_config(folder, **settings))
        else:
            stage2.train(stage2_config(folder, tokenizer, **settings))
        return spoiler


STAGES = pytest.mark.parametrize("stage", [1, 2])


@STAGES
def test_stop(tmp_path: Path, tokenizer: Path, stage: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kind: Any = Stage1Module if stage == 1 else Stage2Module
        spoiler = Spoiler(patch, kind, {BAD})
        config = stage1_config(tmp_path) if stage == 1 else stage2_config(tmp_path, tokenizer)
        train: Any = stage1.train if stage == 1 else stage2.train
        with pytest.raises(Prod9Error) as caught:
            train(config)
    saved = tmp_path / "nonfinite" / "step-00000004.npz"
    what = "the loss term 'l1' became nan" if stage == 1 else "the gradient's norm became nan"
    names = ", ".join(spoiler.names[BAD])
    start = f"{what} at step 4 on the batch {names}; the batch is saved in {saved}; "
    assert str(caught.value).startswith(start)
    with np.load(saved, allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == spoiler.names[BAD]
        first = arrays["volumes" if stage == 1 else "tokens"]
        assert np.isnan(first).sum() == (1 if stage == 1 else 0)
    # The last checkpoint is that of the first epoch's end, from before.
    assert learned(tmp_path)["prod9_position"]["steps"] == 3
    assert same(read_weights(tmp_path), spoiler.before[3][0])


def read_weights(folder: Path) -> Any:
    return read_last(folder / "checkpoints").content["state_dict"]


@STAGES
def test_skip(
    tmp_path: Path, tokenizer: Path, stage: int, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiler = run(tmp_path, tokenizer, stage, {BAD}, trainer__on_nan="skip")
    assert "steps left out of this run" in capsys.readouterr().err
    counts = dict(logged(tmp_path)["train/left_out"])
    assert counts == {float(number): float(number >= BAD) for number in range(STEPS)}
    assert read_last(tmp_path / "checkpoints").content["left_out"] == 1
    assert len(spoiler.after) == STEPS
    for number, (before, after) in enumerate(zip(spoiler.before, spoiler.after, strict=True)):
        assert same(before, after) == (number == BAD)  # neither weights nor moments
    weights = learned(tmp_path)["state_dict"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert learned(tmp_path)["lr_schedulers"][0]["last_epoch"] == STEPS  # the schedule goes on
    assert [path.name for path in (tmp_path / "nonfinite").iterdir()] == ["step-00000004.npz"]


@STAGES
def test_rollback(tmp_path: Path, tokenizer: Path, stage: int) -> None:
    spoiler = run(tmp_path, tokenizer, stage, {BAD}, trainer__on_nan="rollback")
    assert len(spoiler.after) == STEPS
    assert same(spoiler.before[BAD], spoiler.after[BAD])
    # The next step begins with what the first epoch's end had: the state before step 3.
    assert same(spoiler.before[BAD + 1], spoiler.before[3])
    assert not same(spoiler.before[BAD], spoiler.before[3])
    # But it goes on with other data.
    names = [name for part in spoiler.names[3:6] for name in part]
    assert sorted(names) == [f"toy/{number}" for number in range(6)]
    # And at the rates of its own place in the run: the schedules do not go back.
    assert learned(tmp_path)["lr_schedulers"][0]["last_epoch"] == STEPS
    straight = run(tmp_path / "straight", tokenizer, stage, set(), trainer__on_nan="rollback")
    assert spoiler.rates == straight.rates
    assert straight.rates[BAD + 1] != straight.rates[4]
    assert learned(tmp_path)["prod9_position"]["steps"] == STEPS


@pytest.mark.slow
def test_rollback_in_the_last_step_of_an_epoch(tmp_path: Path, tokenizer: Path) -> None:
    """What is saved at the end is what was gone back to."""
    spoiler = run(tmp_path, tokenizer, 1, {5}, trainer__on_nan="rollback")
    assert same(spoiler.before[6], spoiler.before[3])


@pytest.mark.slow
def test_a_rollback_is_the_same_once_more(tmp_path: Path, tokenizer: Path) -> None:
    """Stopped after it and resumed from before, a run goes the same way."""
    on: dict[str, Any] = {"trainer__on_nan": "rollback"}
    run(tmp_path / "whole", tokenizer, 1, {BAD}, **on)
    with pytest.MonkeyPatch.context() as patch:
        Spoiler(patch, Stage1Module, {BAD})
        config = stage1_config(tmp_path / "cut", **on)
        real = Stage1Module.on_before_optimizer_step

        def cut(this: Any, optimizer: Any) -> None:
            if this.batches_seen == 5:
                raise RuntimeError("power cut")
            real(this, optimizer)

        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Stage1Module, "on_before_optimizer_step", cut)
            with pytest.raises(RuntimeError, match="power cut"):
                stage1.train(config)
        stage1.train(config, resume=True)
    assert same(learned(tmp_path / "cut"), learned(tmp_path / "whole"))


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(
    tmp_path: Path, tokenizer: Path
) -> None:
    on: dict[str, Any] = {"trainer__on_nan": "rollback"}
    with pytest.raises(Prod9Error, match=r"no checkpoint yet.*every_n_steps, which is 9"):
        run(tmp_path, tokenizer, 1, {1}, **on, callbacks__checkpoint__every_n_steps=9)


@pytest.mark.slow
@STAGES
@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_a_run_that_learns_nothing_any_more_ends(
    tmp_path: Path, tokenizer: Path, stage: int, policy: str
) -> None:
    """Though it saves (the same again) after every second step."""
    settings: dict[str, Any] = {"trainer__on_nan": policy, "trainer__max_epochs": 6}
    settings["callbacks__checkpoint__every_n_steps"] = 2
    often = "in a row" if policy == "skip" else "after the same checkpoint"
    with pytest.raises(Prod9Error, match=rf"at step 12 .*\(10 times {often}\)"):
        run(tmp_path, tokenizer, stage, set(range(3, 99)), **settings)


def test_the_gradient_alone(tmp_path: Path, tokenizer: Path) -> None:
    """Every term is a number, but the gradient is not, in the discriminator only."""
    real = stage1_module.discriminator_loss

    class Cusp(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("inf")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1_module, "discriminator_loss", lambda *args: Cusp.apply(real(*args)))
        with pytest.raises(Prod9Error, match=r"the gradient's norm became (nan|inf) at step 2"):
            stage1.train(stage1_config(tmp_path))
