"""What is said of a run, by a clock that the test winds."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from prod9.runtime.progress import duration
from prod9.training.display.progress import TrainingProgress

MODULE = pl.LightningModule()  # is not looked at


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("prod9.runtime.progress.time", clock)
    monkeypatch.setattr("prod9.training.display.progress.time", clock)
    return clock


def planned(**settings: Any) -> Any:
    """Return the little of a Trainer that is asked for: 3 epochs of 10 batches."""
    own: dict[str, Any] = {
        "num_training_batches": 10,
        "max_epochs": 3,
        "current_epoch": 0,
        "callback_metrics": {},
        "__init__": lambda self: None,
    }
    return type("Planned", (pl.Trainer,), own | settings)()


def batches(callback: TrainingProgress, trainer: Any, clock: Clock, seconds: list[float]) -> None:
    """Train batches that take so long."""
    for each in seconds:
        clock.now += each
        callback.on_train_batch_end(trainer, MODULE)


def test_time_left_and_speed_are_those_of_a_steady_run(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    callback, trainer = TrainingProgress("Stage 1"), planned()
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    batches(callback, trainer, clock, [12] * 7)
    callback.on_train_end(trainer, MODULE)
    # A line after at least 30 s: at 36 and 72 s.
    assert capsys.readouterr().err.splitlines() == [
        "Stage 1: 3 of 30 batches, 12.0 s each, 5.4 min left  epoch 1/3",
        "Stage 1: 6 of 30 batches, 12.0 s each, 4.8 min left  epoch 1/3",
        "Stage 1: 7 batches in 84 s",
    ]


def test_the_mean_includes_validations(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    callback, trainer = TrainingProgress("Stage 1"), planned()
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    batches(callback, trainer, clock, [2] * 10)
    clock.now += 100
    trainer.current_epoch = 1
    batches(callback, trainer, clock, [0.5])
    # 11 batches of 30 and a validation took 120.5 s: the other 19 may take 208 s.
    assert "11 of 30 batches, 11.0 s each, 3.5 min left  epoch 2/3" in capsys.readouterr().err


def test_a_resumed_run_counts_on_and_measures_afresh(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    callback, trainer = TrainingProgress("Stage 1"), planned(current_epoch=2)
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    batches(callback, trainer, clock, [40])
    # One of the ten batches that are left took 40 s; nothing is known of the twenty before.
    said = "Stage 1: 21 of 30 batches, 40.0 s each, 6.0 min left  epoch 3/3\n"
    assert capsys.readouterr().err == said
    callback.on_train_end(trainer, MODULE)
    assert capsys.readouterr().err == "Stage 1: 1 batches in 40 s\n"


def test_a_run_resumed_in_mid_epoch_counts_on(clock: Clock) -> None:
    callback = TrainingProgress("Stage 1")
    callback.on_train_batch_start(planned(current_epoch=2), MODULE, None, 4)
    assert (callback.first, callback.done, callback.whole) == (24, 24, 30)


def test_figures_are_shown_once_they_are_there(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    callback, trainer = TrainingProgress("Stage 1"), planned()
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    trainer.callback_metrics = {"train/loss": torch.tensor(0.25), "val/psnr": torch.tensor(31.0)}
    batches(callback, trainer, clock, [60])
    assert capsys.readouterr().err.endswith("epoch 1/3  loss 0.250  PSNR 31.000\n")


def test_on_a_terminal_figures_are_fetched_twice_a_second(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Metrics(dict[str, torch.Tensor]):
        fetched = 0

        def __getitem__(self, key: str) -> torch.Tensor:
            type(self).fetched += 1
            return super().__getitem__(key)

    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes that for a terminal
    callback = TrainingProgress("Stage 1")
    trainer = planned(num_training_batches=100, callback_metrics=Metrics())
    trainer.callback_metrics["train/loss"] = torch.tensor(0.25)
    callback.on_train_batch_start(trainer, MODULE, None, 0)
    assert callback.line is not None
    batches(callback, trainer, clock, [0.0625] * 100)
    assert Metrics.fetched == 12  # 100 batches in 6.25 s
    (task,) = callback.line.bar.tasks
    assert (task.completed, task.total) == (96, 300)
    callback.teardown()
    assert not callback.line.bar.live.is_started


def test_a_real_trainer_tells_what_is_asked_of_it(
    make_trainer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            return self.layer(batch).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    data = torch.utils.data.DataLoader(torch.zeros(12, 1), batch_size=2)  # type: ignore[arg-type]
    callback = TrainingProgress("Stage 1")
    settings: dict[str, Any] = {"limit_train_batches": 0.5}
    trainer = make_trainer(max_epochs=4, callbacks=[callback], **settings)
    trainer.fit(Line(), data)
    assert (callback.first, callback.done, callback.whole) == (0, 12, 12)
    assert capsys.readouterr().err.endswith("Stage 1: 12 batches in 0 s\n")

    path = f"{trainer.default_root_dir}/last.ckpt"
    trainer.save_checkpoint(path)
    callback = TrainingProgress("Stage 1")
    trainer = make_trainer(max_epochs=5, callbacks=[callback], **settings)
    trainer.fit(Line(), data, ckpt_path=path, weights_only=True)
    assert (callback.first, callback.done, callback.whole) == (12, 15, 15)
    assert capsys.readouterr().err.endswith("Stage 1: 3 batches in 0 s\n")


def test_durations() -> None:
    assert duration(0.0) == "0.0 min"
    assert duration(93.0) == "1.6 min"
    assert duration(3600.0) == "1 h 00 min"
    assert duration(2 * 3600 + 5 * 60 + 29.0) == "2 h 05 min"
