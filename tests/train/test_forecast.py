"""A training says before its first step how long it will take, and learns the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_runs import PowerCut, Recorder, learned, logged, same, stage1_config, stage2_config

from prod9.training import stage1, stage2
from prod9.training.display import forecast
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module

pytestmark = pytest.mark.usefixtures("toy_data")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    stage1.train(stage1_config(folder))
    return folder / "tokenizer.pt"


def forecasts(monkeypatch: pytest.MonkeyPatch, yes: bool) -> None:
    monkeypatch.setattr(forecast, "FEWEST", 1 if yes else 1000)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if "on this machine" in line]


def both(make: Any, train: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Train with and without a forecast; everything that a training leaves is the same."""
    for name in ("with", "without"):
        forecasts(patch, name == "with")
        train(make(folder / name))
    assert same(learned(folder / "with"), learned(folder / "without"))
    assert logged(folder / "with") == logged(folder / "without")


def test_stage1_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both(stage1_config, stage1.train, tmp_path, monkeypatch)
    (line,) = lines(capsys)
    seconds = r"[\d.e-]+ s"
    assert re.fullmatch(
        rf"Stage 1: about [\d.]+ min on this machine \(2 steps of {seconds}, then 7 steps of "
        rf"{seconds} with the discriminator, measured on one of each; 3 validations of {seconds}\)",
        line,
    )


def test_stage2_learns_the_same(
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def make(folder: Path) -> Any:
        return stage2_config(
            folder, tokenizer, trainer__limit_val_batches=0, trainer__log_every_n_steps=50
        )

    both(make, stage2.train, tmp_path, monkeypatch)  # with dropout
    hits, others = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["train_hits"]
        for name in ("with", "without")
    )
    assert hits[:, 1].sum() > 0  # not logged yet
    assert torch.equal(hits, others)
    (line,) = lines(capsys)
    assert re.fullmatch(
        r"Stage 2: about [\d.]+ min on this machine \(9 steps of [\d.e-]+ s, measured on 2 of "
        r"them\)",
        line,
    )


@pytest.mark.parametrize("stage", [1, 2])
def test_a_resumed_run_is_forecast_from_where_it_was(
    stage: int,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    module: Any = Stage1Module if stage == 1 else Stage2Module
    config = stage1_config(tmp_path) if stage == 1 else stage2_config(tmp_path, tokenizer)
    train: Any = stage1.train if stage == 1 else stage2.train
    with pytest.MonkeyPatch.context() as patch:
        forecasts(patch, False)
        Recorder(module, patch).cut = (1, 0)
        with pytest.raises(PowerCut):
            train(config)
    forecasts(monkeypatch, True)
    train(config, resume=True)
    (line,) = lines(capsys)
    # The discriminator has begun.
    assert re.search(r"\(6 steps of [\d.e-]+ s, measured on 2 of them; 2 validations", line)


def test_short_runs_are_not_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage1.train(stage1_config(tmp_path))
    assert lines(capsys) == []


def test_values_that_are_not_finite_end_the_run_at_its_step_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The forecast neither reports nor saves what the first step will find."""
    forecasts(monkeypatch, True)
    real = Stage1Module.reconstruction_terms

    def broken(this: Any, *volumes: Any) -> Any:
        terms = real(this, *volumes)
        return terms | {"l1": terms["l1"] * float("nan")} if this.batches_seen == 0 else terms

    monkeypatch.setattr(Stage1Module, "reconstruction_terms", broken)
    stage1.train(stage1_config(tmp_path, trainer__on_nan="skip"))
    err = capsys.readouterr().err
    assert err.count("became nan") == 1
    assert "NaN or infinite (trainer.on_nan=skip): 1;" in err


def test_of_fast_and_slow_steps_and_validations_the_sum_is_told() -> None:
    phases = (forecast.Phase(100, 0.5), forecast.Phase(300, 1.5, " with the discriminator"))
    found = forecast.Forecast(phases, 10, 5.0)
    assert found.seconds == 550
    assert str(found) == (
        "about 9.2 min on this machine (100 steps of 0.5 s, then 300 steps of 1.5 s with the "
        "discriminator, measured on one of each; 10 validations of 5 s)"
    )
