"""What is said of a run, by a clock that the test winds."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from rich.console import Console

from prod9.runtime.progress import duration
from prod9.training import progress
from prod9.training.progress import TrainingProgress

MODULE = pl.LightningModule()  # is not looked at


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def quiet(batch_size: int = 4) -> tuple[TrainingProgress, io.StringIO]:
    callback, text = TrainingProgress("Stage 1", batch_size), io.StringIO()
    callback.console = Console(file=text, force_terminal=False, soft_wrap=True, highlight=False)
    return callback, text


def planned(**settings: Any) -> Any:
    """Return the little of a Trainer that is asked for: 3 epochs of 10 batches."""
    own: dict[str, Any] = {
        "num_training_batches": 10,
        "max_epochs": 3,
        "current_epoch": 0,
        "check_val_every_n_epoch": 1,
        "callback_metrics": {},
        "fit_loop": SimpleNamespace(restarting=False),
        "__init__": lambda self: None,
    }
    return type("Planned", (pl.Trainer,), own | settings)()


def epoch(callback: TrainingProgress, trainer: Any, clock: Clock, batch: float, val: float) -> None:
    """Train for an epoch of ``batch`` seconds a batch, validate for ``val`` seconds."""
    for _ in range(trainer.num_training_batches):
        clock.now += batch
        callback.on_train_batch_end(trainer, MODULE)
    if val:
        callback.on_validation_start(trainer, MODULE)
        clock.now += val
        callback.on_validation_end(trainer, MODULE)
    trainer.current_epoch += 1


def test_time_left_and_speed_are_those_of_a_steady_run(clock: Clock) -> None:
    callback, text = quiet()
    trainer = planned()
    callback.on_train_start(trainer, MODULE)
    epoch(callback, trainer, clock, 6, 0)
    callback.on_train_end(trainer, MODULE)
    # A line after at least 15 s: at 18, 36, 54 s. 30 batches of 6 s, 4 volumes each.
    assert text.getvalue().splitlines() == [
        "Stage 1: epoch 1/3, batch 3/30, 2.7 min left  0.7 volumes/s",
        "Stage 1: epoch 1/3, batch 6/30, 2.4 min left  0.7 volumes/s",
        "Stage 1: epoch 1/3, batch 9/30, 2.1 min left  0.7 volumes/s",
        "Stage 1: 10 batches in 60 s",
    ]


def test_validations_cost_what_they_have_cost_and_no_speed(clock: Clock) -> None:
    callback, _ = quiet()
    trainer = planned()
    callback.on_train_start(trainer, MODULE)
    epoch(callback, trainer, clock, 2, 100)
    assert callback.seconds_per_batch() == 2
    # Two epochs of 20 s and two validations of 100 s are left.
    assert callback.seconds_left(trainer) == 240
    for _ in range(5):
        clock.now += 2
        callback.on_train_batch_end(trainer, MODULE)
    assert callback.seconds_left(trainer) == 230


@pytest.mark.parametrize(
    ("epochs", "every", "done", "left"), [(10, 3, 3, 2), (10, 3, 4, 2), (10, 5, 9, 1), (7, 1, 7, 0)]
)
def test_only_the_validations_that_will_be_are_counted(
    clock: Clock, epochs: int, every: int, done: int, left: int
) -> None:
    callback, _ = quiet()
    trainer = planned(max_epochs=epochs, check_val_every_n_epoch=every)
    callback.on_train_start(trainer, MODULE)
    for number in range(1, done + 1):
        epoch(callback, trainer, clock, 1, 50 if number % every == 0 else 0)
    expected = 10 * (epochs - done) + 50 * left
    assert callback.seconds_left(trainer) == pytest.approx(expected)


def test_a_resumed_run_counts_on_and_measures_afresh(clock: Clock) -> None:
    callback, text = quiet()
    trainer = planned(current_epoch=2)
    callback.on_train_start(trainer, MODULE)
    clock.now += 20
    callback.on_train_batch_end(trainer, MODULE)
    # One of the ten batches that are left took 20 s; nothing is known of the twenty before.
    said = "Stage 1: epoch 3/3, batch 21/30, 3.0 min left  0.2 volumes/s\n"
    assert text.getvalue() == said
    callback.on_train_end(trainer, MODULE)
    assert text.getvalue() == said + "Stage 1: 1 batches in 20 s\n"


def test_a_run_resumed_in_mid_epoch_counts_on(clock: Clock) -> None:
    callback, _ = quiet()
    inner = SimpleNamespace(batch_idx=3)  # of the fourth batch, the last that was done
    loop = SimpleNamespace(restarting=True, epoch_loop=inner)
    callback.on_train_start(planned(current_epoch=2, fit_loop=loop), MODULE)
    assert (callback.first, callback.done, callback.whole) == (24, 24, 30)


def test_figures_are_shown_once_they_are_there(clock: Clock) -> None:
    callback, text = quiet()
    trainer = planned()
    callback.on_train_start(trainer, MODULE)
    trainer.callback_metrics = {"train/loss": torch.tensor(0.25), "val/psnr": torch.tensor(31.0)}
    clock.now += 60
    callback.on_train_batch_end(trainer, MODULE)
    assert text.getvalue().endswith("volumes/s  loss 0.250  PSNR 31.000\n")


def test_on_a_terminal_figures_are_fetched_twice_a_second(clock: Clock) -> None:
    class Metrics(dict[str, torch.Tensor]):
        fetched = 0

        def __getitem__(self, key: str) -> torch.Tensor:
            type(self).fetched += 1
            return super().__getitem__(key)

    callback = TrainingProgress("Stage 1", 4)
    callback.console = Console(file=io.StringIO(), force_terminal=True, width=100)
    trainer = planned(num_training_batches=100, callback_metrics=Metrics())
    trainer.callback_metrics["train/loss"] = torch.tensor(0.25)
    callback.on_train_start(trainer, MODULE)
    assert callback.bar is not None
    for _ in range(100):
        clock.now += 0.0625
        callback.on_train_batch_end(trainer, MODULE)
    assert Metrics.fetched == 12  # 100 batches in 6.25 s
    (task,) = callback.bar.tasks
    assert (task.completed, task.total) == (100, 300)
    callback.on_exception(trainer, MODULE, RuntimeError())
    assert callback.bar is None


def test_a_real_trainer_tells_what_is_asked_of_it(make_trainer: Any) -> None:
    class Line(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            return self.layer(batch).mean()

        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.log("val/psnr", self.layer(batch).mean())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    data = torch.utils.data.DataLoader(torch.zeros(12, 1), batch_size=2)  # type: ignore[arg-type]
    callback, text = quiet()
    settings: dict[str, Any] = {"limit_train_batches": 0.5, "check_val_every_n_epoch": 2}
    trainer = make_trainer(max_epochs=4, callbacks=[callback], **settings)
    trainer.fit(Line(), data, data)
    assert (callback.first, callback.done, callback.whole) == (0, 12, 12)
    assert callback.validations == 2
    assert text.getvalue() == "Stage 1: 12 batches in 0 s\n"

    path = f"{trainer.default_root_dir}/last.ckpt"
    trainer.save_checkpoint(path)
    callback, text = quiet()
    trainer = make_trainer(max_epochs=5, callbacks=[callback], **settings)
    trainer.fit(Line(), data, data, ckpt_path=path, weights_only=True)
    assert (callback.first, callback.done, callback.whole) == (12, 15, 15)
    assert text.getvalue() == "Stage 1: 3 batches in 0 s\n"


def test_durations() -> None:
    assert duration(0.0) == "0.0 min"
    assert duration(93.0) == "1.6 min"
    assert duration(3600.0) == "1 h 00 min"
    assert duration(2 * 3600 + 5 * 60 + 29.0) == "2 h 05 min"
