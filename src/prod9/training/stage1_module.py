"""Stage 1: train the autoencoder, later against a discriminator."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.config import Stage1Config
from prod9.data.crops import Batch
from prod9.losses.adversarial import adaptive_weight, discriminator_loss, generator_loss
from prod9.losses.feature_loss import FeatureLoss
from prod9.metrics.codebook import CodebookUsage
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.networks.autoencoder import Autoencoder, Reconstruction
from prod9.runtime.distributed import average, mean, total
from prod9.runtime.random_streams import step_stream
from prod9.shapes import Volume
from prod9.training.ema import EMA
from prod9.training.optimizer import adamw, loss_scaler, optimizer_of, scheduler
from prod9.training.stage_module import StageModule


class Stage1Module(StageModule[Stage1Config]):
    """Generator: L1 + w_p * feature term + w_a * adaptive * adversarial (Esser et al. 2021).

    Args:
        config: the whole Stage 1 configuration.
        autoencoder: the network that is trained.
        feature_loss: the loss of ``loss.loss_type``.
        discriminator: returns one logit map per scale; None trains without.
    """

    title, monitor, mode = "Stage 1", "val/psnr", "max"
    costlier_with = "the discriminator"
    ema: EMA[Autoencoder]

    def __init__(
        self,
        config: Stage1Config,
        autoencoder: Autoencoder,
        feature_loss: FeatureLoss,
        discriminator: nn.Module | None,
    ) -> None:
        super().__init__(config)
        # Two optimizers, each for one network's gradients: Lightning's loop cannot do this.
        self.automatic_optimization = False
        self.autoencoder = autoencoder
        self.ema = EMA(autoencoder, config.training.stability.ema_decay)
        self.feature_loss = feature_loss
        self.discriminator = discriminator
        self.usage = CodebookUsage(autoencoder.fsq.levels)
        self._adaptive: Tensor | None = None
        # Lightning's global_step advances once per optimizer, so batches are counted here.
        self.batches_seen = 0

    # --- the training step ------------------------------------------------------------------

    def reconstruction_terms(self, volume: Volume, target: Volume) -> dict[str, Tensor]:
        """Return the weighted terms that compare a reconstruction with its target, in fp32."""
        predicted, feature = volume.float(), self.feature_loss
        weight = self.config.loss.reconstruction.weight
        terms = {"l1": weight * F.l1_loss(predicted, target)}
        if feature.weight > 0:
            stream = step_stream(self.config.seed, self.batches_seen, 0)  # equal on all processes
            terms[feature.name] = feature.weight * feature(predicted, target, stream)
        return terms

    def costlier_from(self) -> int:
        return 0 if self.discriminator is None else self.config.loss.discriminator_iter_start

    def adversarial_active(self) -> bool:
        """Whether there is a discriminator and its first batch has come."""
        started = self.batches_seen >= self.config.loss.discriminator_iter_start
        return self.discriminator is not None and started

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take one generator step and, once the discriminator is active, one of its steps."""
        optimizers, schedulers = _listed(self.optimizers()), _listed(self.lr_schedulers())
        real = batch.volumes
        volume: Volume = self.autoencoder(real).volume.float()
        # The losses see a detached copy. Each is differentiated once, with respect to this copy;
        # the adaptive weight and the step both continue from that gradient.
        seen = volume.detach().requires_grad_()
        terms = self.reconstruction_terms(seen, real)
        scaler = loss_scaler(self)
        scale = 1.0 if scaler is None else float(scaler.get_scale())
        gradient = _gradient(sum_of(terms), seen, scale)
        verdicts: list[tuple[Tensor, Tensor]] = []
        if self.adversarial_active():
            verdicts = self._verdicts(real, seen)
            terms["adversarial"], pull = self._adversarial(verdicts, volume, seen, gradient, scale)
            gradient = gradient + pull
        self.nonfinite_guard.expect(terms, self.batches_seen, batch)
        terms = _mean_over_processes(terms)
        # Its value has no meaning; its gradient is that of the sum of the terms.
        finite = self._step(optimizers[0], schedulers[0], (volume * gradient).sum())
        if self.nonfinite_guard.learned:
            self.ema.update(self.autoencoder)

        if verdicts and finite:
            real_maps, fake_maps = zip(*verdicts, strict=True)
            criterion = self.config.loss.adversarial.criterion
            term = discriminator_loss(list(real_maps), list(fake_maps), criterion)
            self.nonfinite_guard.expect({"discriminator": term}, self.batches_seen, batch)
            self._suffix = "_discriminator"
            self._step(optimizers[1], schedulers[1], term, inputs=_parameters(optimizers[1]))
            self._suffix = ""
            self.log("train/discriminator", mean(term.detach()))
        elif verdicts:
            schedulers[1].step()  # its schedule counts dropped steps too
        self.batches_seen += 1
        # Logged last: in an epoch's first step Lightning drops what was logged before the
        # optimizers' steps.
        if self._adaptive is not None:
            self.log("train/adaptive_weight", self._adaptive)
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        self.log("train/loss", sum_of(terms).detach(), prog_bar=True)

    def _verdicts(self, real: Volume, fake: Volume) -> list[tuple[Tensor, Tensor]]:
        """Return logit maps (of the real volumes, of the reconstructions), a pair per scale.

        One pass serves both networks' steps: the discriminator does not change in between.
        """
        assert self.discriminator is not None
        maps: list[Tensor] = self.discriminator(torch.cat([real, fake.to(real.dtype)]))
        return [(m[: len(real)], m[len(real) :]) for m in maps]

    def _adversarial(
        self,
        verdicts: list[tuple[Tensor, Tensor]],
        volume: Volume,
        seen: Volume,
        gradient: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted adversarial term, and its gradient at the reconstruction.

        ``seen`` is the detached copy of the reconstruction ``volume`` that the ``verdicts`` are of,
        ``gradient`` that of the reconstruction terms there.
        """
        config = self.config.loss
        fooling = generator_loss([fake for _, fake in verdicts], config.adversarial.criterion)
        pull = _gradient(fooling, seen, scale, retain_graph=True)
        weight: float | Tensor = config.adversarial.weight
        if config.adaptive.enabled:
            adaptive = adaptive_weight(
                volume,
                gradient,
                pull,
                self.autoencoder.last_layer,
                max_weight=config.adaptive.max_weight,
                scale=scale,
            )
            self._adaptive = adaptive
            weight = weight * adaptive
        return weight * fooling.detach(), weight * pull

    def _step(self, optimizer: Any, schedule: Any, loss: Tensor, **where: Any) -> bool:
        """Take an optimizer step; return whether the gradient was finite (else it does nothing)."""
        optimizer.zero_grad()
        self.manual_backward(loss, **where)
        # Once for each network (prod9.training.strategies).
        average([p.grad for p in _parameters(optimizer) if p.grad is not None])
        optimizer.step()
        schedule.step()
        return self._finite

    def configure_optimizers(self) -> Any:
        """Return an optimizer and a schedule for each network."""
        config = self.config.training
        steps = int(self.trainer.estimated_stepping_batches)
        rate = config.optimizer.learning_rate
        optimizers = [optimizer_of(self, self.autoencoder, config.optimizer)]
        schedulers = [scheduler(optimizers[0], steps, config.scheduler)]
        if self.discriminator is not None:
            rate = config.optimizer.discriminator_learning_rate or rate
            remaining = max(1, steps - self.config.loss.discriminator_iter_start)
            own = adamw(self, self.discriminator.parameters(), config.optimizer, rate)
            optimizers.append(own)
            schedulers.append(scheduler(own, remaining, config.scheduler))
        return optimizers, schedulers

    # --- validation, with the EMA -----------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.usage.reset()
        self._means.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure PSNR, SSIM and the weighted loss terms of the EMA on one batch."""
        output: Reconstruction = self.ema.network(batch.volumes)
        volume = output.volume.float().clamp(0, 1)
        self.usage.update(self.autoencoder.fsq.codes_to_indices(output.codes))
        terms = self.reconstruction_terms(output.volume, batch.volumes)
        values: dict[str, Tensor] = {
            **{f"val/loss_{name}": term for name, term in terms.items()},
            "val/l1": F.l1_loss(volume, batch.volumes),
            "val/psnr": psnr(volume, batch.volumes).mean(),
            "val/ssim": ssim(volume, batch.volumes).mean(),
        }
        self._means.add(values, len(volume))

    def on_validation_epoch_end(self) -> None:
        """Log means over all volumes, and the use of the codebook."""
        self.log_dict(self._means.compute(), prog_bar=True)
        self.usage.counts = total(self.usage.counts)
        stats = self.usage.compute()
        self.log("val/codebook_usage", stats.usage)
        self.log("val/codebook_perplexity", stats.perplexity)

    # --- checkpoints ------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.batches_seen = int(checkpoint["batches_seen"])


def _listed(found: Any) -> list[Any]:
    """Return optimizers or schedules as a list, which Lightning does only for several."""
    return cast("list[Any]", found) if isinstance(found, list) else [found]


def _parameters(optimizer: Any) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _mean_over_processes(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the terms of the batch of all processes, without a gradient."""
    values = mean(torch.stack([term.detach() for term in terms.values()]))
    return dict(zip(terms, values.unbind(), strict=True))


def sum_of(terms: dict[str, Tensor]) -> Tensor:
    """Return the sum of scalar terms."""
    return torch.stack(list(terms.values())).sum()


def _gradient(loss: Tensor, at: Tensor, scale: float, *, retain_graph: bool = False) -> Tensor:
    """Return the gradient of ``loss`` at ``at``; it is computed multiplied by fp16's ``scale``."""
    (gradient,) = torch.autograd.grad(scale * loss, at, retain_graph=retain_graph)
    return gradient / scale
