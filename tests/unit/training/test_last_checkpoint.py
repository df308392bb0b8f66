"""When ``last.ckpt`` is written, and which batch it continues from."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from prod9.config import Stage1Config
from prod9.config.load import load_stage1
from prod9.training.checkpoint_files import LAST, PREVIOUS, read_last
from prod9.training.last_checkpoint import LastCheckpoint, WholeCheckpoints
from prod9.training.nonfinite import NonfiniteGuard

BATCHES = 5


class Counter(pl.LightningModule):
    """A weight that each batch raises by one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.nonfinite_guard = NonfiniteGuard("stop", folder)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return -self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Seen(pl.Callback):
    """Notes, as each batch ends, how many batches ``last.ckpt`` holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.held = folder, list[float | None]()

    def on_train_batch_end(self, *_: Any) -> None:
        self.held.append(weight(self.folder / LAST))


def weight(path: Path) -> float | None:
    if not path.exists():
        return None
    return float(torch.load(path, weights_only=True)["state_dict"]["weight"])


def run(folder: Path, make_trainer: Any, steps: int, epochs: int) -> Seen:
    config: Stage1Config = load_stage1(
        Path("maskgit/medmnist3d/stage1/ffl.yaml"),
        [
            f"callbacks.checkpoint.every_n_steps={steps}",
            f"callbacks.checkpoint.every_n_epochs={epochs}",
            "data.batch_size=2",
        ],
    )
    seen = Seen(folder)
    callbacks = [seen, LastCheckpoint(folder, config)]
    trainer = make_trainer(
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        enable_checkpointing=True,
        max_epochs=2,
        limit_val_batches=0,
    )
    data = torch.utils.data.DataLoader(range(2 * BATCHES), batch_size=2)  # type: ignore[arg-type]
    trainer.fit(Counter(folder), data)
    return seen


@pytest.mark.parametrize(
    ("steps", "epochs", "held"),
    [
        # Written as the batch after the due one begins, and at the ends of epochs.
        (2, 1, [None, None, 2, 2, 4, 5, 6, 6, 8, 8]),
        (0, 1, [None] * BATCHES + [5] * BATCHES),
        (0, 2, [None] * 2 * BATCHES),
        (3, 2, [None, None, None, 3, 3, 3, 6, 6, 6, 9]),
    ],
)
def test_when_it_is_written(
    tmp_path: Path, make_trainer: Any, steps: int, epochs: int, held: list[float | None]
) -> None:
    assert run(tmp_path, make_trainer, steps, epochs).held == held
    assert weight(tmp_path / LAST) == 2 * BATCHES  # always at the end


def test_it_notes_the_place_in_the_epoch_and_keeps_the_one_before(
    tmp_path: Path, make_trainer: Any
) -> None:
    run(tmp_path, make_trainer, steps=4, epochs=2)
    found = read_last(tmp_path)
    assert (found.position.epochs, found.position.batches, found.position.steps) == (2, 0, 10)
    assert weight(tmp_path / PREVIOUS) == 8
    (tmp_path / LAST).write_bytes(b"torn")
    found = read_last(tmp_path)
    assert found.torn == tmp_path / LAST
    assert (found.position.epochs, found.position.batches, found.position.steps) == (1, 3, 8)
