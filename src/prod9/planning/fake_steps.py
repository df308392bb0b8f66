"""One training step of either stage, rehearsed: parameters, memory, arithmetic, and no numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prod9.config import Stage1Config, Stage2Config
from prod9.data.tokens.store import TokenBatch
from prod9.data.volumes import Batch
from prod9.losses.medicalnet import MedicalNetResNet10
from prod9.losses.perceptual import MedicalNetPerceptualLoss
from prod9.masking import gamma
from prod9.model import build_transformer
from prod9.networks.activation_checkpointing import recompute_activations
from prod9.networks.condition import Condition
from prod9.planning.fake_tensors import Setting, bare, in_precision, pretend
from prod9.planning.recorder import Operation, Rehearsal
from prod9.tokenizer import CHANNELS, build_autoencoder
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.optimizer import adamw
from prod9.training.stage1 import build_discriminator, build_focal_frequency
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module

Sides = tuple[int, int, int]


@dataclass(frozen=True)
class TokenSizes:
    """What the transformer must know of tokenizer and data."""

    levels: tuple[int, ...]
    grid: Sides
    """Token grid of a whole volume."""
    window: Sides
    """Cells per training sample."""
    classes: int
    sources: int


@dataclass(frozen=True)
class Rehearsed:
    """A step in the middle of a run."""

    batch: int
    parameters: Mapping[str, int]
    """Network -> numbers, trained or frozen."""
    standing: int
    """Bytes between steps: weights, gradients, moments, averaged weights, the batch."""
    peak: int
    """The most bytes at any moment."""
    flops: Mapping[str, tuple[float, float]]
    """Network -> (forward, backward) of the whole batch."""
    operations: tuple[Operation, ...]


def rehearse_stage1(
    config: Stage1Config, sides: Sides, batch: int, setting: Setting, *, checkpointing: bool
) -> Rehearsed:
    """Rehearse a step on volumes of ``sides`` voxels, with the discriminator, if there is one."""
    with bare():
        loss = config.loss
        feature: nn.Module = (
            build_focal_frequency(loss.focal_frequency)
            if loss.loss_type == "ffl"
            else MedicalNetPerceptualLoss(MedicalNetResNet10().state_dict())
        )
        judge = build_discriminator(config)
        network = build_autoencoder(config.model.autoencoder)
        module = Stage1Module(config, network, feature, judge)
    if checkpointing:
        recompute_activations(network)
    networks: dict[str, nn.Module] = {"autoencoder": network}
    if judge is not None:
        networks["discriminator"] = judge
    if isinstance(feature, MedicalNetPerceptualLoss):
        networks["feature network"] = feature.network
    with pretend(setting, [module, *networks.values()]) as watch:
        trained = [n for n in (network, judge) if n is not None]
        optimizers = [
            adamw(module, n.parameters(), config.training.optimizer, 1e-4) for n in trained
        ]
        rows: dict[str, Any] = {
            "optimizers": lambda **_: optimizers if judge else optimizers[0],  # pyright: ignore[reportUnknownLambdaType]
            "lr_schedulers": lambda: [_Idle()] * 2 if judge else _Idle(),
            "manual_backward": lambda loss, **where: loss.backward(**where),  # pyright: ignore[reportUnknownLambdaType]
            "log": _nothing,
            "log_dict": _nothing,
        }
        for name, value in rows.items():
            setattr(module, name, value)
        for optimizer in optimizers:
            optimizer.register_step_pre_hook(_update_of(watch, module))
            optimizer.register_step_post_hook(_end_of(watch))
        _update_apart(watch, module)
        module.nonfinite_guard = _Trust()
        module.batches_seen = loss.discriminator_iter_start
        volumes = torch.zeros(batch, CHANNELS, *sides)
        data = Batch(volumes, torch.zeros(batch, dtype=torch.long), [""] * batch)

        def step() -> None:
            with in_precision(setting):
                module.training_step(data, 0)

        return _rehearsed(watch, step, networks, optimizers, batch)


def rehearse_stage2(
    config: Stage2Config, sizes: TokenSizes, batch: int, setting: Setting, *, checkpointing: bool
) -> Rehearsed:
    """Rehearse a step on samples of ``sizes.window`` tokens.

    As many tokens are masked as one step in forty exceeds: memory must suffice for those too.
    """
    kept = masked_share(config, int(np.prod(sizes.window)), batch)
    with bare():
        network = build_transformer(
            config.model.transformer,
            levels=sizes.levels,
            num_classes=sizes.classes,
            num_sources=sizes.sources,
            grid=sizes.grid,
        )
        module = Stage2Module(config, network)
    if checkpointing:
        recompute_activations(network)
    with pretend(setting, [module], kept) as watch:
        optimizer = adamw(module, network.parameters(), config.training.optimizer, 1e-4)
        setattr(module, "log", _nothing)  # noqa: B010
        module.nonfinite_guard = _Trust()
        optimizer.register_step_pre_hook(_update_of(watch, module))
        _update_apart(watch, module)
        data = _tokens(sizes, batch)

        def draw(*sides: int) -> Tensor:
            return torch.rand(batch, *sides)

        def step() -> None:
            with in_precision(setting):
                condition = Condition(data.labels, network.null_label, data.sources, data.origin)
                condition = condition.dropped(draw() < 0.5, network.mask_id)
                loss = module._masked_loss(  # pyright: ignore[reportPrivateUsage]
                    network, data, draw(), condition, draw, config.loss.label_smoothing
                )[0]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            module.ema.update(network)

        return _rehearsed(watch, step, {"transformer": network}, [optimizer], batch)


def masked_share(config: Stage2Config, cells: int, batch: int) -> float:
    """Return the share of a batch's tokens that is masked, mean plus two standard deviations."""
    ratios = torch.linspace(0, 1, 1001)
    share = gamma(config.loss.mask_schedule, ratios, cells)
    return min(1.0, float(share.mean() + 2 * share.std() / batch**0.5))


def _tokens(sizes: TokenSizes, batch: int) -> TokenBatch:
    def integers(*sides: int) -> Tensor:
        return torch.zeros(sides, dtype=torch.long)

    return TokenBatch(
        integers(batch, *sizes.window),
        integers(batch),
        [""] * batch,
        integers(batch, sizes.sources, *sizes.window) if sizes.sources else None,
        torch.zeros(batch, 3) if sizes.sources else None,
    )


def _rehearsed(
    watch: Rehearsal,
    step: Callable[[], None],
    networks: Mapping[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    batch: int,
) -> Rehearsed:
    watch.name_networks(networks)
    for optimizer in optimizers:  # as the step before has left them
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
                optimizer.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
    watch.begin()
    step()
    return Rehearsed(
        batch,
        {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()},
        watch.held,
        watch.peak,
        watch.flops(),
        tuple(watch.operations.values()),
    )


def _update_of(watch: Rehearsal, module: Any) -> Any:
    """Do before an optimizer's step what Lightning's hook does, and count from there on apart."""

    def hook(optimizer: torch.optim.Optimizer, *_: object) -> None:
        watch.per_sample = False
        module.on_before_optimizer_step(optimizer)

    return hook


def _end_of(watch: Rehearsal) -> Any:
    def hook(*_: object) -> None:
        watch.per_sample = True

    return hook


def _update_apart(watch: Rehearsal, module: Any) -> None:
    """Count what the moving average does apart from what is done for each sample."""
    follow = module.ema.update

    def update(network: nn.Module) -> None:
        watch.per_sample = False
        follow(network)
        watch.per_sample = True

    module.ema.update = update


class _Trust(NonfiniteGuard):
    """Takes every number for one: there are none to look at."""

    def __init__(self) -> None:
        super().__init__("stop", Path())

    def expect(self, terms: Mapping[str, Tensor], step: int, batch: Batch | TokenBatch) -> None:
        """Note nothing."""

    def admits(self, norm: Tensor, *, scaled: bool = False, network: str = "") -> bool:
        """Admit it."""
        return True


class _Idle:
    def step(self) -> None:
        """Leave the learning rate as it is."""


def _nothing(*_: object, **__: object) -> None:
    """Log nothing."""
