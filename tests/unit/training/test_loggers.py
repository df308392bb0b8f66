"""Loggers: what is refused before any data is read, and what reaches each service."""

import csv
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from prod9.config import Stage1Config, TrainerConfig
from prod9.errors import Prod9Error
from prod9.training import stage1
from prod9.training.display.previews import Previews
from prod9.training.loggers import HistoryLogger, build_loggers, require_logger
from prod9.training.run_folder import RunFolder
from prod9.training.trainer import build_trainer

VARIABLES = ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests do not count."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def config(folder: Path, logger: str) -> Stage1Config:
    return Stage1Config.model_validate(
        {
            "output_dir": folder,
            "autoencoder_export_path": folder / "tokenizer.pt",
            "data": {"dataset_name": "organmnist3d"},
            "loss": {"loss_type": "ffl"},
            "trainer": {
                "logger": logger,
                "accelerator": "cpu",
                "max_epochs": 2,
                "limit_val_batches": 0,
                "log_every_n_steps": 1,
            },
        }
    )


def test_the_history_is_always_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (history,) = build_loggers(config(tmp_path, "csv"), folder, 0)
    assert isinstance(history, HistoryLogger)
    assert history.path.parent == folder.history
    board, history = build_loggers(config(tmp_path, "tensorboard"), folder, 0)
    assert isinstance(board, TensorBoardLogger)
    assert Path(board.log_dir) == folder.tensorboard
    assert isinstance(history, HistoryLogger)


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Pretend that of the loggers' packages only these are installed."""
    monkeypatch.setattr(
        "importlib.metadata.distributions", lambda name: [name] if name in packages else []
    )


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_found_before_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    installed(monkeypatch)
    # A folder of runs that Python could import is no package.
    (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(tmp_path)

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("data was read")

    monkeypatch.setattr(stage1, "training_volumes", never)
    with pytest.raises(Prod9Error) as caught:
        stage1.train(config(tmp_path / "run", name))
    assert f"pip install {name}" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_installed_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "mlflow-skinny")
    require_logger(TrainerConfig(logger="mlflow"))
    with pytest.raises(Prod9Error, match="pip install wandb"):
        require_logger(TrainerConfig(logger="wandb"))


# --- the services themselves, where they are installed --------------------------------------------


class Toy(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.log("train/masked_accuracy_0.0-0.2", torch.tensor(0.5 + self.current_epoch))
        return self.layer(batch).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def draw(batches: int) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([0, batches])
    return figure


def train(folder: Path, logger: str) -> pl.Trainer:
    """Train two epochs of two batches, with a picture in the middle and one at the end."""
    settings = config(folder, logger)
    run = RunFolder(folder)
    run.claim(settings, resume=False, overwrite=False)
    callbacks: list[Any] = [Previews(run.previews, 3, draw)]
    trainer = build_trainer(settings, run, callbacks)
    data = torch.utils.data.DataLoader(torch.zeros(4, 1), batch_size=2)  # type: ignore[arg-type]
    trainer.fit(Toy(), data)
    with (run.history / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["train/masked_accuracy_0.0-0.2"] for row in rows] == ["0.5", "0.5", "1.5", "1.5"]
    return trainer


def test_mlflow_in_the_run_folder(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for name in ("first", "second"):  # the second one in the same process, in a store of its own
        train(tmp_path / name, "mlflow")
        client = mlflow.tracking.MlflowClient(f"sqlite:///{tmp_path / name / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("prod9")
        (run,) = client.search_runs([experiment.experiment_id])
        assert (run.info.run_name, run.info.status) == (name, "FINISHED")
        history = client.get_metric_history(run.info.run_id, "train/masked_accuracy_0.0-0.2")
        assert [(m.step, m.value) for m in history] == [(0, 0.5), (1, 0.5), (2, 1.5), (3, 1.5)]
        assert run.data.params["trainer/logger"] == "mlflow"
        pictures = client.list_artifacts(run.info.run_id, "previews")
        names = ["batch-0000003.png", "batch-0000004.png"]
        assert [Path(p.path).name for p in pictures] == names
        assert len([*(tmp_path / name / "mlflow_files").rglob("*.png")]) == 2


def test_wandb_offline_in_the_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    wandb.teardown()  # its settings are read once
    require_logger(TrainerConfig(logger="wandb"))
    seen: list[str] = []
    for name in ("first", "second"):  # the second one in the same process, in a run of its own
        trainer = train(tmp_path / name, "wandb")
        run = trainer.loggers[0].experiment
        assert (run.name, run.project, run.offline) == (name, "prod9", True)
        assert run.config["trainer"]["max_epochs"] == 2
        seen.append(run.id)
        assert wandb.run is None
        folder = tmp_path / name / "wandb"
        assert len([*folder.rglob("preview_*.png")]) == 2
        assert [*folder.glob(f"offline-run-*-{run.id}/run-{run.id}.wandb")]
    assert seen[0] != seen[1]
    wandb.teardown()
