"""Pictures while training: what the networks can do by now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from prod9.montage import save_figure

Preview = Callable[[int], matplotlib.figure.Figure]
"""Number of batches seen -> a figure."""


class Previews(Callback):
    """Draw ``preview`` every ``every_n_steps`` batches and at the end.

    The figures go to ``folder/batch-N.png`` and to TensorBoard.
    """

    def __init__(self, folder: Path, every_n_steps: int, preview: Preview) -> None:
        self.folder, self.every, self.preview = folder, every_n_steps, preview
        self.batches = self.drawn = 0

    def _draw(self, trainer: pl.Trainer) -> None:
        if self.drawn == self.batches or not trainer.is_global_zero:
            return
        self.drawn = self.batches
        figure = self.preview(self.batches)
        save_figure(self.folder / f"batch-{self.batches:07d}.png", figure)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure("preview", figure, self.batches)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Draw when it is time."""
        self.batches += 1
        if self.batches % self.every == 0:
            self._draw(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the final state."""
        self._draw(trainer)

    def state_dict(self) -> dict[str, int]:
        """Batches so far, so that a resumed run numbers its pictures on."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the count."""
        self.batches = state_dict["batches"]
