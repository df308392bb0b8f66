"""Stage 2: train the masked transformer on a token store."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from prod9.config import Stage2Config
from prod9.data.token_store import TokenBatch
from prod9.errors import UserError
from prod9.masking import gamma, mask_tokens
from prod9.models.condition import Condition
from prod9.models.transformer import MaskedTransformer
from prod9.training.ema import EMA
from prod9.training.gradients import clip_and_log
from prod9.training.optimizer import adamw
from prod9.training.schedule import scheduler
from prod9.training.streams import step_stream
from prod9.training.watch import require_finite

BUCKETS = 5
"""Masked accuracy is logged for mask ratios in [0, .2), [.2, .4), ... [.8, 1]."""


class Stage2Module(pl.LightningModule):
    """Cross-entropy over masked tokens (Chang et al. 2022, arXiv 2202.04200, section 3.1)."""

    def __init__(
        self, config: Stage2Config, transformer: MaskedTransformer, tokenizer_digest: str = ""
    ) -> None:
        super().__init__()
        self.tokenizer_digest = tokenizer_digest
        self.config = config
        self.transformer = transformer
        self.ema = EMA(transformer, config.training.stability.ema_decay)
        self._train_hits = torch.zeros(BUCKETS, 2)
        self._val_hits = torch.zeros(BUCKETS, 2)

    def _masked_loss(
        self,
        network: MaskedTransformer,
        batch: TokenBatch,
        ratio: Tensor,
        condition: Condition,
        generator: torch.Generator | None,
        smoothing: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask, predict; return loss, hits per masked token, and each token's mask ratio."""
        cells = batch.tokens[0].numel()
        share = gamma(self.config.loss.mask_schedule, ratio, cells)
        masked = mask_tokens(batch.tokens, share, network.mask_id, generator)
        loss, hits = network.loss(masked.tokens, masked.mask, batch.tokens, condition, smoothing)
        shares = share.view(-1, 1, 1, 1).expand_as(masked.mask)[masked.mask]
        return loss, hits, shares

    def _condition(self, batch: TokenBatch, generator: torch.Generator) -> Condition:
        """Return class, place and a random subset of the source modalities of each sample."""
        condition = Condition(
            batch.labels, self.transformer.null_label, batch.sources, batch.origin
        )
        if batch.sources is None:
            return condition
        chance = torch.rand(batch.sources.shape[:2], generator=generator, device=self.device)
        alone = torch.rand(len(chance), 1, generator=generator, device=self.device)
        loss = self.config.loss
        withheld = (chance < loss.source_dropout) | (alone < loss.source_free_share)
        return condition.without_sources(withheld, self.transformer.mask_id)

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """One step; the condition is dropped at random, so that guidance has both models."""
        stream = step_stream(self.config.seed, self.global_step, self.global_rank, self.device)
        count = len(batch.labels)
        chance = torch.rand(count, generator=stream, device=self.device)
        drop = chance < self.config.loss.condition_dropout
        absent = self.transformer.mask_id
        condition = self._condition(batch, stream).dropped(drop, absent)
        ratio = torch.rand(count, generator=stream, device=self.device)
        loss, hits, shares = self._masked_loss(
            self.transformer, batch, ratio, condition, stream, self.config.loss.label_smoothing
        )
        require_finite({"cross_entropy": loss}, self.global_step, batch.names)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/masked_accuracy", hits.float().mean(), prog_bar=True)
        self._log_accuracy_by_ratio(hits, shares)
        return loss

    def _log_accuracy_by_ratio(self, hits: Tensor, shares: Tensor) -> None:
        """Count on the device; log what came together since the last batch whose values are."""
        self._train_hits = self._train_hits.to(self.device)
        _count(self._train_hits, hits, shares)
        if (self.global_step + 1) % self.config.trainer.log_every_n_steps == 0:
            for bucket, accuracy in _accuracies(self._train_hits):
                self.log(f"train/masked_accuracy_{bucket}", torch.tensor(accuracy))
            self._train_hits.zero_()

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        """Let the averaged weights follow."""
        self.ema.update(self.transformer)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient norm (after unscaling)."""
        clip_and_log(self, optimizer, self.config.training.stability.gradient_clip)

    def configure_optimizers(self) -> Any:
        """AdamW with MaskGIT's constants, and the schedule, per step."""
        config = self.config.training
        optimizer = adamw(
            self,
            self.transformer.parameters(),
            config.optimizer,
            config.optimizer.learning_rate,
        )
        total = int(self.trainer.estimated_stepping_batches)
        schedule = scheduler(optimizer, total, config.scheduler)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    # --- validation, with the averaged weights ----------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Count hits afresh each epoch."""
        self._val_hits = torch.zeros(BUCKETS, 2, device=self.device)

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Loss and accuracy of the averaged weights; the same masks in every epoch."""
        generator = torch.Generator(self.device).manual_seed(batch_idx)
        # Evenly spread ratios: every bucket gets its share, whatever the schedule of training.
        count = len(batch.labels)
        ratio = (torch.arange(count, device=self.device) + 0.5) / count
        condition = self._condition(batch, generator)
        loss, hits, shares = self._masked_loss(
            self.ema.network, batch, ratio, condition, generator, smoothing=0.0
        )
        _count(self._val_hits, hits, shares)
        values = {"val/loss": loss, "val/masked_accuracy": hits.float().mean()}
        self.log_dict(values, batch_size=count, prog_bar=True, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Accuracy per bucket of mask ratio."""
        for bucket, accuracy in _accuracies(self._val_hits):
            self.log(f"val/masked_accuracy_{bucket}", accuracy)

    # --- what a checkpoint must carry besides the weights -----------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say whose tokens these weights have learned."""
        checkpoint["tokenizer_digest"] = self.tokenizer_digest

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with other tokens.

        Raises:
            UserError: the run began with another tokenizer.

        """
        theirs = checkpoint["tokenizer_digest"]
        if theirs != self.tokenizer_digest:
            raise UserError(
                f"this run began with the tokenizer {theirs[:12]}, but autoencoder_path now holds "
                f"{self.tokenizer_digest[:12]}; put the first one back, or start anew with "
                "--overwrite."
            )


def _count(counts: Tensor, hits: Tensor, shares: Tensor) -> None:
    """Add masked tokens to ``counts`` (BUCKETS, 2): hits and tokens per bucket of mask ratio."""
    bucket = (shares * BUCKETS).long().clamp_max(BUCKETS - 1)
    counts[:, 0].index_add_(0, bucket, hits.float())
    counts[:, 1].index_add_(0, bucket, torch.ones_like(shares))


def _accuracies(counts: Tensor) -> list[tuple[str, float]]:
    """Return (name, share of hits) of the buckets that are not empty."""
    return [
        (f"{bucket / BUCKETS:.1f}-{(bucket + 1) / BUCKETS:.1f}", hits / total)
        for bucket, (hits, total) in enumerate(counts.tolist())
        if total
    ]
