import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from prod9.config import MedMNISTDataConfig, Stage1Config
from prod9.data.array_dataset import ArrayDataset
from prod9.data.batches import set_epoch
from prod9.data.crops import Batch, volume_loader
from prod9.errors import Prod9Error
from prod9.losses.adversarial import adaptive_weight, discriminator_loss, generator_loss
from prod9.losses.feature_loss import build_feature_loss
from prod9.losses.focal_frequency import FocalFrequencyLoss
from prod9.metrics.psnr import psnr
from prod9.networks.discriminator import MultiScaleDiscriminator
from prod9.tokenizer import build_autoencoder
from prod9.training import stage1_module
from prod9.training.stage1_module import Stage1Module

DATA = MedMNISTDataConfig(dataset_name="organmnist3d", batch_size=2)


def configure(**loss: Any) -> Stage1Config:
    return Stage1Config.model_validate(
        {
            "output_dir": "out",
            "autoencoder_export_path": "tokenizer.pt",
            "data": {"dataset_name": "organmnist3d"},
            "model": {
                "autoencoder": {
                    "levels": (5, 4, 3),
                    "num_channels": (8, 8),
                    "norm_num_groups": 4,
                }
            },
            "loss": {
                "loss_type": "ffl",
                "discriminator_iter_start": 0,
                "focal_frequency": {"ratio": 1.0},
                **loss,
            },
            "training": {
                "optimizer": {"learning_rate": 1e-3, "discriminator_learning_rate": 2e-3},
                "scheduler": {"name": "cosine", "warmup_steps": 2},
            },
        }
    )


def build(config: Stage1Config, *, discriminator: bool = True) -> Stage1Module:
    torch.manual_seed(0)
    return Stage1Module(
        config,
        build_autoencoder(config.model.autoencoder),
        build_feature_loss(config.loss),
        MultiScaleDiscriminator(1, 4, 1, 1) if discriminator else None,
    )


def snapshot(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in network.parameters()]


def same(a: list[Any], b: list[Any]) -> bool:
    return all(
        x is y if x is None or y is None else torch.equal(x, y) for x, y in zip(a, b, strict=True)
    )


class Moves(pl.Callback):
    """After each batch: which networks moved, and what was logged."""

    def __init__(self) -> None:
        self.moved: list[tuple[bool, bool]] = []
        self.logged: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        self.before = snapshot(pl_module.autoencoder), snapshot(pl_module.discriminator)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        after = snapshot(pl_module.autoencoder), snapshot(pl_module.discriminator)
        self.moved.append(tuple(not same(a, b) for a, b in zip(self.before, after, strict=True)))
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})


@pytest.mark.parametrize("start", [0, 1, 3, 99])
def test_the_discriminator_joins_after_so_many_batches(
    make_trainer: Any, volumes: ArrayDataset, start: int
) -> None:
    module, moves = build(configure(discriminator_iter_start=start)), Moves()
    trainer = make_trainer(max_epochs=2, limit_val_batches=0, callbacks=[moves])
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    assert moves.moved == [(True, batch >= start) for batch in range(8)]
    assert module.batches_seen == 8
    for batch, logged in enumerate(moves.logged):
        assert ("train/discriminator" in logged) == (batch >= start)
        assert ("train/adversarial" in logged) == (batch >= start)


def test_no_gradient_leaks_between_the_networks(
    make_trainer: Any, volumes: ArrayDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = build(configure())
    assert module.discriminator is not None
    networks = (module.autoencoder, module.discriminator)
    real = Stage1Module._step
    steps: list[int] = []

    def spy(self: Stage1Module, optimizer: Any, schedule: Any, loss: Tensor, **where: Any) -> bool:
        turn = len(steps) % 2  # generator, discriminator, generator...
        other = networks[1 - turn]
        grads, weights, own = gradients(other), snapshot(other), snapshot(networks[turn])
        fine = real(self, optimizer, schedule, loss, **where)
        assert same(grads, gradients(other))
        assert same(weights, snapshot(other))
        assert not same(own, snapshot(networks[turn]))
        assert all(p.requires_grad for network in networks for p in network.parameters())
        steps.append(turn)
        return fine

    monkeypatch.setattr(Stage1Module, "_step", spy)
    make_trainer(limit_val_batches=0).fit(
        module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0)
    )
    assert steps == [0, 1] * 4


def plain_gradients(
    module: Stage1Module, x: Tensor, adaptive: bool
) -> tuple[list[Tensor], list[Tensor], dict[str, float]]:
    """The definition: losses through the whole graph, each pass of the discriminator its own."""
    config = module.config.loss
    generator, judge = module.autoencoder, module.discriminator
    assert judge is not None
    criterion = config.adversarial.criterion
    volume = generator(x).volume
    reconstruction = torch.stack(list(module.reconstruction_terms(volume, x).values())).sum()
    fooling = generator_loss(judge(volume), criterion)
    weight = torch.tensor(1.0)
    if adaptive:
        norms = [
            torch.autograd.grad(loss, generator.last_layer, retain_graph=True)[0].norm()
            for loss in (reconstruction, fooling)
        ]
        weight = (norms[0] / (norms[1] + 1e-4)).clamp_max(config.adaptive.max_weight)
        assert abs(float(weight) - 1) > 0.01
    total = reconstruction + config.adversarial.weight * weight * fooling
    of_generator = torch.autograd.grad(total, list(generator.parameters()))
    term = discriminator_loss(judge(x), judge(volume.detach()), criterion)
    of_judge = torch.autograd.grad(term, list(judge.parameters()))
    values = {"loss": float(total), "discriminator": float(term)}
    return list(of_generator), list(of_judge), values


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("criterion", ["hinge", "least_squares"])
def test_the_step_takes_the_gradients_of_the_definition(
    make_trainer: Any,
    volumes: ArrayDataset,
    monkeypatch: pytest.MonkeyPatch,
    criterion: Any,
    adaptive: bool,
) -> None:
    config = configure(
        adversarial={"weight": 0.3, "criterion": criterion}, adaptive={"enabled": adaptive}
    )
    module = build(config)
    assert module.discriminator is not None
    batches = volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0)
    expected: list[tuple[list[Tensor], list[Tensor], dict[str, float]]] = []
    found: list[list[Tensor]] = []
    step = Stage1Module.training_step

    def compare(self: Stage1Module, batch: Batch, batch_idx: int) -> None:
        expected.append(plain_gradients(self, batch.volumes, adaptive))
        step(self, batch, batch_idx)

    def look(module: Stage1Module, optimizer: torch.optim.Optimizer) -> None:
        found.append([p.grad.clone() for p in optimizer.param_groups[0]["params"]])

    monkeypatch.setattr(Stage1Module, "training_step", compare)
    monkeypatch.setattr(Stage1Module, "on_before_optimizer_step", look)  # and do not clip
    trainer = make_trainer(limit_val_batches=0, limit_train_batches=1)
    trainer.fit(module, batches)
    ((of_generator, of_judge, values),) = expected
    for plain, ours in zip((of_generator, of_judge), found, strict=True):
        # Real and fake nearly cancel in some biases: what is left is as exact as its parts.
        largest = 3e-5 * max(float(p.abs().max()) for p in plain)
        for p, o in zip(plain, ours, strict=True):
            torch.testing.assert_close(o, p, rtol=1e-4, atol=largest)
    for name, value in values.items():
        assert float(trainer.callback_metrics[f"train/{name}"]) == pytest.approx(value, rel=1e-4)


def test_each_loss_is_differentiated_once(make_trainer: Any, volumes: ArrayDataset) -> None:
    module = build(configure())
    assert module.discriminator is not None
    forward: list[int] = []
    module.discriminator.register_forward_hook(
        lambda network, args, maps: forward.append(len(args[0]))
    )
    backward: list[str] = []
    module.feature_loss.term.register_full_backward_hook(
        lambda term, *gradients: backward.append("feature")
    )
    trainer = make_trainer(limit_val_batches=0, limit_train_batches=1)
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    assert forward == [4]  # two real volumes and their two reconstructions, together
    assert backward == ["feature"]


def test_terms_are_weighted(volumes: ArrayDataset) -> None:
    x = torch.from_numpy(volumes.images[:2]).float() / 255
    config = configure(
        reconstruction={"weight": 2.0}, focal_frequency={"weight": 0.5, "ratio": 1.0}
    )
    module = build(config)
    output = module.autoencoder(x)
    terms = module.reconstruction_terms(output.volume, x)
    assert list(terms) == ["l1", "focal_frequency"]
    torch.testing.assert_close(terms["l1"], 2 * (output.volume - x).abs().mean())
    torch.testing.assert_close(
        terms["focal_frequency"], 0.5 * FocalFrequencyLoss(ratio=1.0)(output.volume, x)
    )
    off = build(configure(focal_frequency={"weight": 0.0}))
    assert list(off.reconstruction_terms(off.autoencoder(x).volume, x)) == ["l1"]


def test_training_without_a_discriminator(make_trainer: Any, volumes: ArrayDataset) -> None:
    module = build(configure(), discriminator=False)
    before = snapshot(module.autoencoder)
    trainer = make_trainer(limit_val_batches=0)
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    assert not same(before, snapshot(module.autoencoder))
    assert "train/adversarial" not in trainer.callback_metrics
    total = trainer.callback_metrics
    assert float(total["train/loss"]) == pytest.approx(
        float(total["train/l1"] + total["train/focal_frequency"])
    )


def test_schedules_count_the_steps_of_each_network(
    make_trainer: Any, volumes: ArrayDataset
) -> None:
    rates: list[list[float]] = []

    class Rates(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            rates.append([o.param_groups[0]["lr"] for o in trainer.optimizers])

    module = build(configure(discriminator_iter_start=4))
    trainer = make_trainer(max_epochs=2, limit_val_batches=0, callbacks=[Rates()])
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    # 8 batches, 2 of them warm-up: the generator's cosine ends with the run.
    generator = [0.5, 1.0] + [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert [r[0] for r in rates] == pytest.approx([1e-3 * g for g in generator])
    # The discriminator has the 4 batches after it joined, and its own peak.
    discriminator = [0.5] * 5 + [1.0, 1.0, 0.5]
    assert [r[1] for r in rates] == pytest.approx([2e-3 * d for d in discriminator])


def test_gradients_are_clipped(make_trainer: Any, volumes: ArrayDataset) -> None:
    norms: list[float] = []

    def note(optimizer: Any, *args: Any) -> None:
        grads = [p.grad for g in optimizer.param_groups for p in g["params"]]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))

    class Norms(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            for optimizer in trainer.optimizers:
                optimizer.register_step_post_hook(note)

    for limit in (0.0, 1e-3):
        norms.clear()
        config = configure()
        stability = config.training.stability.model_copy(update={"gradient_clip": limit})
        training = config.training.model_copy(update={"stability": stability})
        module = build(config.model_copy(update={"training": training}))
        trainer = make_trainer(limit_val_batches=0, callbacks=[Norms()])
        trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
        assert len(norms) == 8  # both networks, four batches
        assert (max(norms) <= 1e-3 * (1 + 1e-4)) == (limit > 0)


def test_gradient_norms_rates_and_the_adaptive_weight_are_logged(
    make_trainer: Any, volumes: ArrayDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    rates: list[float] = []
    weights: list[float] = []

    def note(optimizer: Any, *args: Any) -> None:
        grads = [p.grad for g in optimizer.param_groups for p in g["params"]]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        rates.append(optimizer.param_groups[0]["lr"])

    class Hooks(pl.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            for optimizer in trainer.optimizers:
                optimizer.register_step_pre_hook(note)

    def weigh(*args: Any, **kwargs: Any) -> Tensor:
        weight = adaptive_weight(*args, **kwargs)
        weights.append(float(weight))
        return weight

    monkeypatch.setattr(stage1_module, "adaptive_weight", weigh)
    moves, config = Moves(), configure(discriminator_iter_start=1)
    stability = config.training.stability.model_copy(update={"gradient_clip": 0.0})
    training = config.training.model_copy(update={"stability": stability})
    module = build(config.model_copy(update={"training": training}))
    trainer = make_trainer(limit_val_batches=0, callbacks=[Hooks(), moves])
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    # One step of the generator's, then both networks' in turn.
    (first, *rest) = moves.logged
    for name, seen in (("grad_norm", norms), ("learning_rate", rates)):
        assert first[f"train/{name}"] == pytest.approx(seen[0], rel=1e-5)
        assert f"train/{name}_discriminator" not in first
        assert [r[f"train/{name}"] for r in rest] == pytest.approx(seen[1::2], rel=1e-5)
        both = [r[f"train/{name}_discriminator"] for r in rest]
        assert both == pytest.approx(seen[2::2], rel=1e-5)
    assert len({*norms}) == 7
    assert "train/adaptive_weight" not in first
    assert [r["train/adaptive_weight"] for r in rest] == pytest.approx(weights)
    assert len(weights) == 3

    # What is logged is the norm before clipping.
    clipped = Moves()
    stability = config.training.stability.model_copy(update={"gradient_clip": 1e-3})
    training = config.training.model_copy(update={"stability": stability})
    module = build(config.model_copy(update={"training": training}))
    trainer = make_trainer(limit_val_batches=0, callbacks=[clipped], limit_train_batches=1)
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    assert clipped.logged[0]["train/grad_norm"] == pytest.approx(norms[0], rel=1e-5)


def test_the_averaged_weights_follow_each_generator_step(
    make_trainer: Any, volumes: ArrayDataset
) -> None:
    module = build(configure(discriminator_iter_start=2))
    make_trainer(limit_val_batches=0).fit(
        module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0)
    )
    assert int(module.ema.updates) == 4
    assert not same(snapshot(module.ema.network), snapshot(module.autoencoder))


def test_validation_measures_the_averaged_weights(make_trainer: Any, volumes: ArrayDataset) -> None:
    module = build(configure())
    nn.init.normal_(module.autoencoder.last_layer)  # not what is measured
    (figures,) = make_trainer().validate(
        module, volume_loader(volumes, DATA, (12, 12, 12), train=False, seed=0), verbose=False
    )
    x = torch.from_numpy(volumes.images).float() / 255
    output = module.ema.network(x)
    clamped = output.volume.clamp(0, 1)
    assert figures["val/l1"] == pytest.approx(float((clamped - x).abs().mean()), rel=1e-4)
    assert figures["val/psnr"] == pytest.approx(float(psnr(clamped, x).mean()), rel=1e-4)
    tokens = module.autoencoder.fsq.codes_to_indices(output.codes)
    shares = torch.bincount(tokens.flatten(), minlength=60) / tokens.numel()
    used = shares[shares > 0]
    assert figures["val/codebook_usage"] == pytest.approx(len(used) / 60)
    assert figures["val/codebook_perplexity"] == pytest.approx(
        float((-(used * used.log()).sum()).exp()), rel=1e-4
    )


def test_nan_in_a_batch_stops_with_step_term_and_names(
    make_trainer: Any, volumes: ArrayDataset
) -> None:
    module = build(configure())
    good = volume_loader(volumes, DATA, (12, 12, 12), train=False, seed=0)
    batches = list(good)
    broken = batches[2].volumes.clone()
    broken[1, 0, 3, 3, 3] = float("nan")
    batches[2] = Batch(broken, batches[2].labels, batches[2].names)
    before: list[Tensor] = []

    class Remember(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, i: int) -> None:
            before[:] = snapshot(pl_module.autoencoder)

    sound = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer = make_trainer(limit_val_batches=0, callbacks=[Remember()])
    with pytest.raises(Prod9Error) as caught:
        trainer.fit(module, sound)
    message = str(caught.value)
    assert "the loss term 'l1' became nan at step 2 on the batch toy/4, toy/5;" in message
    assert same(before, snapshot(module.autoencoder))  # nothing was learned from it


def test_the_guard_is_told_of_the_own_terms(
    make_trainer: Any, volumes: ArrayDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process's make those of all NaNs, this one's volumes are not to blame."""
    monkeypatch.setattr(stage1_module, "mean", lambda value: value * float("nan"))
    module, moves = build(configure()), Moves()
    trainer = make_trainer(limit_val_batches=0, callbacks=[moves])
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    assert moves.moved == [(True, True)] * 4
    assert math.isnan(moves.logged[0]["train/loss"])


def test_nan_in_the_discriminator_is_named(
    make_trainer: Any, volumes: ArrayDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stage1_module,
        "discriminator_loss",
        lambda *args: torch.tensor(float("inf"), requires_grad=True),
    )
    with pytest.raises(Prod9Error, match="'discriminator' became inf at step 1 on the batch toy/"):
        make_trainer(limit_val_batches=0).fit(
            build(configure(discriminator_iter_start=1)),
            volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0),
        )


def test_resuming_gives_the_run_that_was_not_interrupted(
    make_trainer: Any, volumes: ArrayDataset, tmp_path: Path
) -> None:
    class Losses(pl.Callback):
        def __init__(self) -> None:
            self.losses: list[float] = []

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            self.losses.append(float(trainer.callback_metrics["train/loss"]))

    def run(epochs: int, checkpoint: Path | None = None) -> tuple[Stage1Module, Any, list[float]]:
        module, losses = build(configure(discriminator_iter_start=3)), Losses()
        batches = volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0)
        if checkpoint:
            set_epoch(batches, 1)  # as prod9.data.batches.set_epoch asks for
        trainer = make_trainer(max_epochs=2, limit_val_batches=0, callbacks=[losses])
        # The schedule's length is that of the whole run; the interruption comes from outside.
        trainer.fit_loop.max_epochs = 2

        class Stop(pl.Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                if trainer.current_epoch + 1 == epochs:
                    trainer.should_stop = True

        trainer.callbacks.append(Stop())
        trainer.fit(module, batches, ckpt_path=checkpoint, weights_only=True)
        return module, trainer, losses.losses

    whole, _, all_losses = run(2)
    _, trainer, first = run(1)
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    resumed, _, second = run(2, path)
    assert first + second == all_losses
    assert resumed.batches_seen == 8
    assert same(snapshot(whole.autoencoder), snapshot(resumed.autoencoder))
    assert same(snapshot(whole.discriminator), snapshot(resumed.discriminator))
    assert same(snapshot(whole.ema), snapshot(resumed.ema))


def test_a_checkpoint_holds_no_code(
    make_trainer: Any, volumes: ArrayDataset, tmp_path: Path
) -> None:
    module = build(configure())
    trainer = make_trainer(limit_val_batches=0)
    trainer.fit(module, volume_loader(volumes, DATA, (12, 12, 12), train=True, seed=0))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    content = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert content["batches_seen"] == 4
    assert np.isfinite(sum(float(v.float().sum()) for v in content["state_dict"].values()))
