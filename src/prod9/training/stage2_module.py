"""Stage 2: train the masked transformer on a token store."""

from collections.abc import Callable, Sized
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from prod9.config import Stage2Config
from prod9.data.tokens.store import TokenBatch
from prod9.errors import Prod9Error
from prod9.masking import gamma, mask_tokens
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.runtime.distributed import gather, is_main, rand, rank, total, world_size
from prod9.runtime.random_streams import step_stream
from prod9.training.ema import EMA
from prod9.training.optimizer import optimizer_of, scheduler
from prod9.training.stage_module import StageModule
from prod9.training.strategies import shard

Draw = Callable[..., Tensor]
"""Sizes -> uniform random numbers (B, *sizes), one row per sample of this process."""
BUCKETS = 5
"""Masked accuracy is logged for mask ratios in [0, .2), [.2, .4), ... [.8, 1]."""


class Stage2Module(StageModule[Stage2Config]):
    """Cross-entropy over masked tokens (Chang et al. 2022, arXiv 2202.04200, section 3.1)."""

    title, monitor, mode = "Stage 2", "val/loss", "min"
    ema: EMA[MaskedTransformer]

    def __init__(
        self, config: Stage2Config, transformer: MaskedTransformer, tokenizer_digest: str = ""
    ) -> None:
        super().__init__(config)
        self.tokenizer_digest = tokenizer_digest
        self.transformer = transformer
        self.ema = EMA(transformer, config.training.stability.ema_decay)
        self._train_hits = _no_hits()
        self._val_hits = _no_hits()
        # All processes must call a network with split weights equally often: one that has fewer
        # validation batches repeats its last one, which counts once.
        self._missing = 0
        self._again: tuple[TokenBatch, int] | None = None

    def configure_model(self) -> None:
        """Split the weights over the processes with FSDP (Lightning's hook)."""
        if self._device_mesh is not None:
            mesh = self._device_mesh["data_parallel"]
            shard(self.transformer, mesh)
            shard(self.ema.network, mesh)

    def _masked_loss(
        self,
        network: MaskedTransformer,
        batch: TokenBatch,
        ratio: Tensor,
        condition: Condition,
        draw: Draw,
        smoothing: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return loss, and for each masked token whether it is predicted right and its ratio."""
        cells = batch.tokens[0].numel()
        share = gamma(self.config.loss.mask_schedule, ratio, cells)
        masked = mask_tokens(batch.tokens, share, network.mask_id, None, draw(cells))
        loss, hits = network.loss(masked.tokens, masked.mask, batch.tokens, condition, smoothing)
        shares = share.view(-1, 1, 1, 1).expand_as(masked.mask)[masked.mask]
        return loss, hits, shares

    def _condition(self, batch: TokenBatch, draw: Draw) -> Condition:
        """Return all that is given of each sample, with a random subset of the source channels."""
        channels = self.transformer.num_channels
        condition = Condition.of(
            batch.labels,
            channels,
            batch.sources,
            batch.origin,
            batch.covariates,
            coarse=batch.coarse,
        )
        share = self.config.loss.covariate_dropout
        if share and condition.covariates is not None:
            withheld = draw(condition.covariates.shape[1]) < share
            condition = replace(
                condition, covariates=condition.covariates.masked_fill(withheld, torch.nan)
            )
        if batch.sources is None:
            return condition
        chance, alone = draw(batch.sources.shape[1]), draw(1)
        loss = self.config.loss
        withheld = (chance < loss.source_dropout) | (alone < loss.source_free_share)
        if self.transformer.coarse_embedding is not None:
            # Given alone, as it is when the model is used.
            free = alone[:, 0] < (loss.source_free_share if channels > 1 else 1)
            withheld[:, -1] = (chance[:, -1] < loss.source_dropout) | ~free
        return condition.without_sources(withheld, self.transformer.mask_id)

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Return the loss; the condition is dropped at random, for classifier-free guidance."""
        stream = step_stream(self.config.seed, self.global_step, 0, self.device)
        draw = self._draw(stream, len(batch.labels) * world_size())
        drop = draw() < self.config.loss.condition_dropout
        absent = self.transformer.mask_id
        condition = self._condition(batch, draw).dropped(drop, absent)
        ratio = draw()
        own, hits, shares = self._masked_loss(
            self.transformer, batch, ratio, condition, draw, self.config.loss.label_smoothing
        )
        loss, accuracy, weight = _over_processes(own, hits)
        self.nonfinite_guard.expect({"cross_entropy": own}, self.global_step, batch)
        self.log("train/loss", loss, prog_bar=True)
        self.log("train/masked_accuracy", accuracy, prog_bar=True)
        self._log_accuracy_by_ratio(hits, shares)
        return own * weight

    def _draw(self, stream: torch.Generator, count: int) -> Draw:
        """Return the source of random numbers for a batch of ``count`` over all processes."""
        return lambda *sizes: rand(count, *sizes, generator=stream, device=self.device)

    def _log_accuracy_by_ratio(self, hits: Tensor, shares: Tensor) -> None:
        """Log the accuracy for each bucket since the last logged batch; count on the device."""
        self._train_hits = self._train_hits.to(self.device)
        self._train_hits += _count(hits, shares)
        if (self.global_step + 1) % self.config.trainer.log_every_n_steps == 0:
            for bucket, accuracy in _accuracies(total(self._train_hits)):
                self.log(f"train/masked_accuracy_{bucket}", torch.tensor(accuracy))
            self._train_hits.zero_()

    def on_train_batch_end(self, outputs: Any, batch: TokenBatch, batch_idx: int) -> None:
        if self.nonfinite_guard.learned:
            self.ema.update(self.transformer)

    def configure_optimizers(self) -> Any:
        """Return an optimizer and a schedule per step."""
        config = self.config.training
        optimizer = optimizer_of(self, self.transformer, config.optimizer)
        total = int(self.trainer.estimated_stepping_batches)
        schedule = scheduler(optimizer, total, config.scheduler)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    # --- validation, with the EMA -----------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._means.reset()
        self._val_hits = _no_hits().to(self.device)
        if self._device_mesh is not None:
            own = int(sum(self.trainer.num_val_batches))
            self._missing = max(gather(own)) - own

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Measure loss and accuracy of the EMA, with the same masks in every epoch."""
        loss, hits, shares = self._measured(batch, batch_idx)
        self._val_hits += _count(hits, shares)
        values = {"val/loss": loss, "val/masked_accuracy": hits.float().mean()}
        self._means.add(values, hits.numel())
        if self._missing:
            self._again = batch, batch_idx

    def _measured(self, batch: TokenBatch, batch_idx: int) -> tuple[Tensor, Tensor, Tensor]:
        count = self._samples_of_all(batch, batch_idx)
        draw = self._draw(torch.Generator(self.device).manual_seed(batch_idx), count)
        # Evenly spread ratios fill all buckets, whatever the schedule of training.
        ratios = (torch.arange(count, device=self.device) + 0.5) / count
        ratio = ratios[rank() :: world_size()]
        condition = self._condition(batch, draw)
        return self._masked_loss(self.ema.network, batch, ratio, condition, draw, smoothing=0.0)

    def _samples_of_all(self, batch: TokenBatch, batch_idx: int) -> int:
        """Return the number of samples of this validation batch over all processes."""
        world = world_size()
        if world == 1:
            return len(batch.labels)
        whole = self.config.data.batch_size * world
        loader = cast("DataLoader[TokenBatch]", self.trainer.val_dataloaders)
        samples = len(cast(Sized, loader.dataset))
        return min(whole, samples - batch_idx * whole)

    def on_validation_epoch_end(self) -> None:
        """Log means over all masked tokens, and the accuracy for each bucket of mask ratios."""
        for _ in range(self._missing):
            assert self._again is not None
            self._measured(*self._again)
        self._missing, self._again = 0, None
        self.log_dict(self._means.compute(), prog_bar=True)
        for bucket, accuracy in _accuracies(total(self._val_hits)):
            self.log(f"val/masked_accuracy_{bucket}", accuracy)

    # --- checkpoints ------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["tokenizer_digest"] = self.tokenizer_digest
        checkpoint["train_hits"] = total(self._train_hits).cpu().clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counts.

        Raises:
            Prod9Error: the run was started with another tokenizer.
        """
        theirs = checkpoint["tokenizer_digest"]
        if theirs != self.tokenizer_digest:
            raise Prod9Error(
                f"this run began with the tokenizer {theirs[:12]}, but autoencoder_path now holds "
                f"{self.tokenizer_digest[:12]}; put the first one back, or start anew with "
                "--overwrite."
            )
        super().on_load_checkpoint(checkpoint)
        if is_main():  # the sum over all processes
            self._train_hits = checkpoint["train_hits"].clone()


def _over_processes(loss: Tensor, hits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Combine this process's loss and accuracy with the others'.

    They are means over masked tokens, of which each process has another number.

    Returns:
        Loss and accuracy over the masked tokens of all processes, without a gradient; and the
        factor of the own loss with which the mean gradient over the processes is the gradient of
        the loss over all tokens.
    """
    own, right = loss.detach(), hits.float().mean()
    if world_size() == 1:
        return own, right, torch.ones_like(own)
    count = torch.full_like(own, hits.numel())
    losses, rights, tokens = total(torch.stack([own * count, right * count, count])).unbind()
    return losses / tokens, rights / tokens, count * world_size() / tokens


def _no_hits() -> Tensor:
    """Return zeros (BUCKETS, 2), int64: a float32 cannot count beyond 2^24."""
    return torch.zeros(BUCKETS, 2, dtype=torch.int64)


def _count(hits: Tensor, shares: Tensor) -> Tensor:
    """Count hits and masked tokens for each bucket of mask ratios, int64 (BUCKETS, 2)."""
    bucket = (shares * BUCKETS).long().clamp_max(BUCKETS - 1)
    # Compared, not scattered: many additions to few places are slow on a GPU.
    inside = bucket == torch.arange(BUCKETS, device=bucket.device)[:, None]
    return torch.stack([(inside & hits.bool()).sum(1), inside.sum(1)], 1)


def _accuracies(counts: Tensor) -> list[tuple[str, float]]:
    """Return (name, share of hits) of the buckets that are not empty."""
    return [
        (f"{bucket / BUCKETS:.1f}-{(bucket + 1) / BUCKETS:.1f}", hits / total)
        for bucket, (hits, total) in enumerate(counts.tolist())
        if total
    ]
