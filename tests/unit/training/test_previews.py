"""When pictures are drawn, what they are called, and who gets them."""

from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

from prod9.config import MedMNISTDataConfig, Stage1Config
from prod9.data.array_dataset import ArrayDataset
from prod9.data.crops import volume_loader
from prod9.losses.feature_loss import build_feature_loss
from prod9.tokenizer import build_autoencoder
from prod9.training.display.previews import Previews
from prod9.training.loggers import HistoryLogger
from prod9.training.stage1_module import Stage1Module

DATA = MedMNISTDataConfig(dataset_name="organmnist3d", batch_size=2)


@pytest.fixture
def module() -> Stage1Module:
    config = Stage1Config.model_validate(
        {
            "output_dir": "out",
            "autoencoder_export_path": "tokenizer.pt",
            "data": {"dataset_name": "organmnist3d"},
            "model": {"autoencoder": {"num_channels": (8, 8), "norm_num_groups": 4}},
            "loss": {"loss_type": "ffl"},
        }
    )
    torch.manual_seed(0)
    return Stage1Module(
        config, build_autoencoder(config.model.autoencoder), build_feature_loss(config.loss), None
    )


def draw(batches: int) -> matplotlib.figure.Figure:
    figure = matplotlib.figure.Figure()
    figure.subplots()
    figure.suptitle(str(batches))
    return figure


def train(
    module: Stage1Module, volumes: ArrayDataset, make_trainer: Any, **settings: Any
) -> list[str]:
    """Train on 4 batches an epoch; return the files of the callback's folder."""
    trainer = make_trainer(**settings)
    trainer.fit(
        module,
        volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0),
        volume_loader(volumes, DATA, (12, 12, 12), train=False, seed=0),
    )
    (previews,) = (c for c in trainer.callbacks if isinstance(c, Previews))
    return sorted(path.name for path in previews.folder.iterdir())


def test_pictures_are_drawn_on_time_and_at_the_end(
    module: Stage1Module, volumes: ArrayDataset, make_trainer: Any, tmp_path: Path
) -> None:
    callback = Previews(tmp_path / "previews", 5, draw)
    names = train(module, volumes, make_trainer, max_epochs=3, callbacks=[callback])
    assert names == ["batch-0000005.png", "batch-0000010.png", "batch-0000012.png"]


def test_a_resumed_run_numbers_its_pictures_on(
    module: Stage1Module, volumes: ArrayDataset, make_trainer: Any, tmp_path: Path
) -> None:
    callback = Previews(tmp_path / "previews", 3, draw)
    callback.load_state_dict({"batches": 12})
    names = train(module, volumes, make_trainer, callbacks=[callback])
    assert names == ["batch-0000015.png", "batch-0000016.png"]
    assert callback.state_dict() == {"batches": 16}


class Pictures:
    """The logger's own class is a base; its service is not there."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, ...]] = []


class Wandb(Pictures, WandbLogger):
    def log_image(self, key: str, images: list[Any], step: int | None = None, **rest: Any) -> None:
        assert all(Path(image).is_file() for image in images)
        self.taken.append((key, step))


class MLFlow(Pictures, MLFlowLogger):
    run_id = "a run"

    @property
    def experiment(self) -> Any:
        return self

    def log_figure(self, run: str, figure: matplotlib.figure.Figure, path: str) -> None:
        self.taken.append((run, path))


class TensorBoard(Pictures, TensorBoardLogger):
    @property
    def experiment(self) -> Any:
        return self

    def add_figure(self, tag: str, figure: matplotlib.figure.Figure, step: int) -> None:
        self.taken.append((tag, step))


def test_whoever_takes_pictures_gets_them(
    module: Stage1Module, volumes: ArrayDataset, tmp_path: Path
) -> None:
    class Trainer(pl.Trainer):
        is_global_zero = True
        loggers = (Wandb(), MLFlow(), TensorBoard(), HistoryLogger(tmp_path))  # type: ignore[assignment]

        def __init__(self) -> None:
            pass

    trainer: Any = Trainer()
    callback = Previews(tmp_path, 1, draw)
    callback.on_train_batch_end(trainer, module)
    callback.on_train_end(trainer, module)  # nothing is new
    wandb, mlflow, tensorboard, _ = trainer.loggers
    assert wandb.taken == tensorboard.taken == [("preview", 1)]
    assert mlflow.taken == [("a run", "previews/batch-0000001.png")]


def test_tensorboard_really_shows_it(
    module: Stage1Module, volumes: ArrayDataset, make_trainer: Any, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="", version="")
    callback = Previews(tmp_path / "previews", 4, draw)
    train(module, volumes, make_trainer, callbacks=[callback], logger=logger)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (picture,) = events.Images("preview")
    assert picture.step == 4
