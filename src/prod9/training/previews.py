"""Pictures made while training: what the networks can do, and how the codebook is used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger

from prod9.metrics.codebook import CodebookStats
from prod9.montage import save_figure
from prod9.training.stage1_module import Stage1Module

Preview = Callable[[int], matplotlib.figure.Figure]
"""Number of batches seen -> a figure."""


class Previews(Callback):
    """Draw ``preview`` every ``every_n_steps`` batches and at the end.

    The figures are written to ``folder/batch-N.png`` and to every logger that takes pictures. In
    Stage 1, ``folder/levels-N.png`` shows the use of the codebook in a validation: the last one,
    and others about as often as the previews.
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
        self._save(trainer, "batch", "preview", self.preview(self.batches))

    def _draw_levels(self, trainer: pl.Trainer, module: pl.LightningModule, wait: int) -> None:
        """Draw the codebook's levels if they were last drawn at least ``wait`` batches ago."""
        if self.validated - self.levels_drawn < wait or not trainer.is_global_zero:
            return
        if isinstance(module, Stage1Module) and module.codebook is not None:
            self.levels_drawn = self.validated
            title = f"Validation after {self.validated} batches"
            self._save(trainer, "levels", "levels", level_bars(module.codebook, title))

    def _save(
        self, trainer: pl.Trainer, stem: str, tag: str, figure: matplotlib.figure.Figure
    ) -> None:
        path = self.folder / f"{stem}-{self.batches:07d}.png"
        save_figure(path, figure)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(tag, figure, self.batches)
            elif isinstance(logger, WandbLogger):
                logger.log_image(tag, [str(path)], step=self.batches)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_figure(logger.run_id, figure, f"previews/{path.name}")

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
        """Return the number of batches: a resumed run continues to count the pictures."""
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore it."""
        self.batches = self.drawn = self.validated = self.levels_drawn = state_dict["batches"]


def level_bars(stats: CodebookStats, title: str = "") -> matplotlib.figure.Figure:
    """Draw, for each latent channel, the share of tokens on each of its levels.

    The dashed line is an even spread. A channel with one tall bar carries no information.
    """
    channels = len(stats.level_shares)
    figure = matplotlib.figure.Figure(figsize=(0.4 + 1.9 * channels, 2.2), dpi=100)
    axes = figure.subplots(1, channels, sharey=True, squeeze=False)[0]
    for number, (axis, shares) in enumerate(zip(axes, stats.level_shares, strict=True), 1):
        axis.bar(range(len(shares)), shares, width=0.8)
        axis.axhline(1 / len(shares), color="black", linewidth=0.8, linestyle="--")
        axis.set_ylim(0, 1)
        axis.set_xticks(range(len(shares)))
        axis.tick_params(labelsize=7)
        axis.set_xlabel("level", fontsize=7)
        axis.set_title(f"channel {number}", fontsize=8)
    figure.axes[0].set_ylabel("share of tokens", fontsize=7)
    codes = f"{stats.usage:.0%} of the codes used, perplexity {stats.perplexity:.1f}"
    figure.suptitle(f"{title}: {codes}" if title else codes, fontsize=8)
    figure.tight_layout(pad=0.4)
    return figure
