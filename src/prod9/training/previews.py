"""Pictures while training: what the networks can do by now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

from prod9.montage import save_figure
from prod9.training.codebook_figure import level_bars
from prod9.training.stage1_module import Stage1Module

Preview = Callable[[int], matplotlib.figure.Figure]
"""Number of batches seen -> a figure."""


class Previews(Callback):
    """Draw ``preview`` every ``every_n_steps`` batches and at the end.

    The figures go to ``folder/batch-N.png`` and to every logger that takes pictures. In Stage 1,
    ``folder/levels-N.png`` shows the codebook's use at a validation: after the last, and about as
    often as the previews in between.
    """

    def __init__(self, folder: Path, every_n_steps: int, preview: Preview) -> None:
        self.folder, self.every, self.preview = folder, every_n_steps, preview
        self.batches = self.drawn = 0
        self.validated = self.levels_drawn = 0
        """Batches before the last validation, and before the one whose levels were drawn last."""

    def _draw(self, trainer: pl.Trainer) -> None:
        if self.drawn == self.batches or not trainer.is_global_zero:
            return
        self.drawn = self.batches
        self._keep(trainer, "batch", "preview", self.preview(self.batches))

    def _draw_levels(self, trainer: pl.Trainer, module: pl.LightningModule, wait: int) -> None:
        """Draw the codebook's levels if ``wait`` batches have gone by since the last time."""
        if self.validated - self.levels_drawn < wait or not trainer.is_global_zero:
            return
        if isinstance(module, Stage1Module) and module.codebook is not None:
            self.levels_drawn = self.validated
            title = f"Validation after {self.validated} batches"
            self._keep(trainer, "levels", "levels", level_bars(module.codebook, title))

    def _keep(
        self, trainer: pl.Trainer, stem: str, tag: str, figure: matplotlib.figure.Figure
    ) -> None:
        path = self.folder / f"{stem}-{self.batches:07d}.png"
        save_figure(path, figure)
        for logger in trainer.loggers:
            match logger:
                case TensorBoardLogger():
                    logger.experiment.add_figure(tag, figure, self.batches)
                case WandbLogger():
                    logger.log_image(tag, [str(path)], step=self.batches)
                case MLFlowLogger():
                    logger.experiment.log_figure(logger.run_id, figure, f"previews/{path.name}")
                case _:
                    pass

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Draw when it is time."""
        self.batches += 1
        if self.batches % self.every == 0:
            self._draw(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the levels when it is time."""
        self.validated = self.batches
        self._draw_levels(trainer, pl_module, self.every)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the final state."""
        self._draw(trainer)
        self._draw_levels(trainer, pl_module, 1)

    def state_dict(self) -> dict[str, int]:
        """Batches so far, so that a resumed run numbers its pictures on."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the count."""
        self.batches = self.drawn = self.validated = self.levels_drawn = state_dict["batches"]
