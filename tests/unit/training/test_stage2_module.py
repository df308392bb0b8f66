import math
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from prod9.config import Stage2Config
from prod9.data.tokens.store import TokenBatch
from prod9.errors import Prod9Error
from prod9.masking import gamma, mask_tokens
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.runtime.random_streams import step_stream
from prod9.training import stage2_module
from prod9.training.stage2_module import Stage2Module

V = 60
GRID = (3, 2, 4)


def configure(**loss: Any) -> Stage2Config:
    return Stage2Config.model_validate(
        {
            "output_dir": "out",
            "autoencoder_path": "tokenizer.pt",
            "data": {"dataset_name": "organmnist3d"},
            "loss": loss,
            "training": {
                "optimizer": {"learning_rate": 1e-3},
                "scheduler": {"name": "cosine", "warmup_steps": 2},
            },
        }
    )


def batches(count: int = 4, size: int = 6) -> list[TokenBatch]:
    random = torch.Generator().manual_seed(0)
    return [
        TokenBatch(
            torch.randint(V, (size, *GRID), generator=random),
            torch.arange(size) % 2,
            [f"toy/{size * i + j}" for j in range(size)],
        )
        for i in range(count)
    ]


def load(parts: list[TokenBatch]) -> Any:
    return torch.utils.data.DataLoader(parts, batch_size=None)  # type: ignore[arg-type]


@pytest.fixture
def module(make_transformer: Any) -> Stage2Module:
    return Stage2Module(configure(), make_transformer())


class Spy:
    """Record what the network is asked; answer ``right`` for every masked cell or for none."""

    def __init__(self, network: MaskedTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.conditions: list[Condition] = []
        self.labels: list[Tensor] = []
        self.masks: list[Tensor] = []
        self.inputs: list[Tensor] = []
        self.smoothing: list[float] = []
        real = network.loss

        def loss(masked: Tensor, mask: Tensor, targets: Tensor, condition: Any, s: float) -> Any:
            self.inputs.append(masked)
            self.masks.append(mask)
            self.conditions.append(condition)
            self.labels.append(condition.classes)
            self.smoothing.append(s)
            assert torch.equal(masked[~mask], targets[~mask])
            assert bool((masked[mask] == V).all())
            return real(masked, mask, targets, condition, s)

        monkeypatch.setattr(network, "loss", loss)


def test_a_step_masks_drops_and_smooths_as_configured(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = configure(label_smoothing=0.3, condition_dropout=0.25, mask_schedule="linear")
    module = Stage2Module(config, make_transformer())
    spy = Spy(module.transformer, monkeypatch)
    trainer = make_trainer(limit_val_batches=0)
    trainer.fit(module, load(batches(60, 10)))
    assert set(spy.smoothing) == {0.3}
    labels = torch.cat(spy.labels)
    dropped = float((labels == -1).float().mean())
    assert abs(dropped - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 600)
    kept = labels[labels >= 0]
    assert 0.4 < float(kept.float().mean()) < 0.6
    # linear: the share of masked cells is uniform over 1 .. 24 (0 is lifted to 1).
    shares = torch.cat([mask.flatten(1).float().mean(1) for mask in spy.masks])
    assert float(shares.min()) >= 1 / 24 - 1e-6
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(shares.std()) == pytest.approx(1 / math.sqrt(12), abs=0.03)


def test_the_schedule_of_masking_is_the_configured_one(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # E gamma(r): 2 / pi for cosine and for arccos, 1 / 2 for linear.
    for schedule, mean in (("cosine", 2 / math.pi), ("arccos", 2 / math.pi), ("linear", 0.5)):
        r = (torch.arange(100_000) + 0.5) / 100_000
        assert float(gamma(schedule, r, 24).mean()) == pytest.approx(mean, abs=1e-4)  # type: ignore[arg-type]
        torch.manual_seed(1)
        module = Stage2Module(configure(mask_schedule=schedule), make_transformer())
        spy = Spy(module.transformer, monkeypatch)
        make_trainer(limit_val_batches=0).fit(module, load(batches(40, 10)))
        shares = torch.cat([mask.flatten(1).float().mean(1) for mask in spy.masks])
        assert float(shares.mean()) == pytest.approx(mean, abs=0.06)


def test_without_condition_dropout_no_class_is_dropped(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Stage2Module(configure(condition_dropout=0.0), make_transformer())
    spy = Spy(module.transformer, monkeypatch)
    make_trainer(limit_val_batches=0).fit(module, load(batches(10, 10)))
    assert torch.equal(torch.cat(spy.labels), (torch.arange(10) % 2).repeat(10))


def test_training_learns_and_the_average_follows(module: Stage2Module, make_trainer: Any) -> None:
    rates: list[float] = []

    class Rates(pl.Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    before = [p.detach().clone() for p in module.transformer.parameters()]
    trainer = make_trainer(max_epochs=2, limit_val_batches=0, callbacks=[Rates()])
    trainer.fit(module, load(batches()))
    expected = [0.5, 1.0] + [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(6)]
    assert rates == pytest.approx([1e-3 * rate for rate in expected])
    assert int(module.ema.updates) == 8
    moved = [
        not torch.equal(a, b) for a, b in zip(before, module.transformer.parameters(), strict=True)
    ]
    assert all(moved)
    settings = trainer.optimizers[0].param_groups[0]
    assert (settings["betas"], settings["weight_decay"]) == ((0.9, 0.96), 0.045)


def test_validation_accuracy_per_bucket_of_mask_ratio(
    module: Stage2Module, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network that is right where few cells are masked: accuracy 1, 1, 0, 0, 0 by bucket.
    limit = 0.4

    def loss(masked: Tensor, mask: Tensor, targets: Tensor, condition: Any, s: float) -> Any:
        assert s == 0.0  # validation measures the plain cross-entropy
        assert bool((condition.classes >= 0).all())
        right = seen[-1] < limit
        return torch.tensor(1.5), right[:, None].expand(-1, 24).reshape(mask.shape)[mask]

    seen: list[Tensor] = []
    real = stage2_module.mask_tokens

    def mask_tokens(tokens: Tensor, share: Tensor, *rest: Any) -> Any:
        seen.append(share)
        return real(tokens, share, *rest)

    monkeypatch.setattr(module.ema.network, "loss", loss)
    monkeypatch.setattr(stage2_module, "mask_tokens", mask_tokens)
    (figures,) = make_trainer().validate(module, load(batches(2, 40)), verbose=False)
    ratio = (torch.arange(40) + 0.5) / 40
    assert torch.allclose(seen[0], gamma("cosine", ratio, 24))
    assert figures["val/loss"] == 1.5
    accuracy = {name[-7:]: v for name, v in figures.items() if "accuracy_" in name}
    assert accuracy == {"0.0-0.2": 1, "0.2-0.4": 1, "0.4-0.6": 0, "0.6-0.8": 0, "0.8-1.0": 0}
    counts = (seen[0] * 24).round().clamp_min(1)
    expected = float(counts[seen[0] < limit].sum() / counts.sum())
    assert figures["val/masked_accuracy"] == pytest.approx(expected, rel=1e-5)


def test_validation_is_the_same_each_time_and_leaves_the_stream_alone(
    module: Stage2Module, make_trainer: Any
) -> None:
    trainer = make_trainer()
    torch.manual_seed(3)
    (first,) = trainer.validate(module, load(batches()), verbose=False)
    state = torch.get_rng_state()
    torch.manual_seed(4)
    (second,) = trainer.validate(module, load(batches()), verbose=False)
    assert first == second
    torch.manual_seed(3)
    assert np.isfinite(list(first.values())).all()
    trainer.validate(module, load(batches()), verbose=False)
    assert torch.equal(torch.get_rng_state(), state)


def test_validation_measures_the_averaged_weights(make_transformer: Any, make_trainer: Any) -> None:
    module = Stage2Module(configure(), make_transformer())
    (first,) = make_trainer().validate(module, load(batches()), verbose=False)
    for parameter in module.transformer.parameters():
        torch.nn.init.normal_(parameter)
    (second,) = make_trainer().validate(module, load(batches()), verbose=False)
    assert first == second


def test_nan_stops_with_step_term_and_names(module: Stage2Module, make_trainer: Any) -> None:
    class Spoil(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, i: int) -> None:
            if i == 2:
                torch.nn.init.constant_(pl_module.transformer.pack.weight, float("nan"))

    trainer = make_trainer(limit_val_batches=0, callbacks=[Spoil()])
    with pytest.raises(Prod9Error) as caught:
        trainer.fit(module, load(batches()))
    assert str(caught.value).startswith(
        "the loss term 'cross_entropy' became nan at step 2 on the batch toy/12, toy/13, "
    )


def test_the_guard_is_told_of_the_own_loss(
    module: Stage2Module, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process's makes that of all a NaN, this one's volumes are not to blame."""
    nan, weight = torch.tensor(float("nan")), torch.tensor(1.0)
    monkeypatch.setattr(stage2_module, "_over_processes", lambda loss, hits: (nan, nan, weight))
    make_trainer(limit_val_batches=0).fit(module, load(batches(2)))
    assert int(module.ema.updates) == 2


def test_hits_are_counted_exactly_however_many() -> None:
    """A float32 that grows by ones stops at 2^24."""
    counts = stage2_module._no_hits() + 2**24
    hits, shares = torch.tensor([True, False, True, True]), torch.tensor([0.1, 0.19, 0.2, 1.0])
    for _ in range(3):
        counts += stage2_module._count(hits, shares)
    grown = [[3, 6], [3, 3], [0, 0], [0, 0], [3, 3]]
    assert (counts - 2**24).tolist() == grown
    # One batch of more than that, all in one bucket.
    many = torch.tensor(1.0).expand(2**24 + 3)
    assert stage2_module._count(many.bool(), many)[4].tolist() == [2**24 + 3] * 2


def test_gradients_are_clipped(make_transformer: Any, make_trainer: Any) -> None:
    for limit in (0.0, 1e-3):
        config = configure()
        stability = config.training.stability.model_copy(update={"gradient_clip": limit})
        training = config.training.model_copy(update={"stability": stability})
        module = Stage2Module(config.model_copy(update={"training": training}), make_transformer())
        norms: list[float] = []

        class Norms(pl.Callback):
            def __init__(self, norms: list[float]) -> None:
                self.norms = norms

            def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
                grads = [p.grad for p in pl_module.transformer.parameters() if p.grad is not None]
                if grads:
                    self.norms.append(float(torch.stack([g.norm() for g in grads]).norm()))

        make_trainer(limit_val_batches=0, callbacks=[Norms(norms)]).fit(module, load(batches()))
        assert norms
        assert (max(norms) <= 1e-3 * (1 + 1e-4)) == (limit > 0)


def test_training_accuracy_is_logged_by_mask_ratio(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure()
    often = config.trainer.model_copy(update={"log_every_n_steps": 2})
    module = Stage2Module(config.model_copy(update={"trainer": often}), make_transformer())
    seen: list[tuple[Tensor, Tensor]] = []  # (ratio, hit) of each masked token, per batch
    logged: list[dict[str, float]] = []
    ratios: list[Tensor] = []
    real_mask, real_loss = stage2_module.mask_tokens, module.transformer.loss

    def masking(tokens: Tensor, share: Tensor, *rest: Any) -> Any:
        ratios.append(share)
        return real_mask(tokens, share, *rest)

    def loss(masked: Tensor, mask: Tensor, *rest: Any) -> Any:
        value, _ = real_loss(masked, mask, *rest)
        where = mask.nonzero()
        hits = where.sum(1) % 3 == 0  # some of them
        seen.append((ratios[-1][where[:, 0]], hits))
        return value, hits

    class NonfiniteGuard(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            metrics = trainer.callback_metrics.items()
            logged.append({k[22:]: float(v) for k, v in metrics if "accuracy_" in k})

    monkeypatch.setattr(stage2_module, "mask_tokens", masking)
    monkeypatch.setattr(module.transformer, "loss", loss)
    trainer = make_trainer(limit_val_batches=0, callbacks=[NonfiniteGuard()])
    trainer.fit(module, load(batches(4, 40)))
    assert logged[0] == {}  # not yet
    assert logged[1] == logged[2] != logged[3]  # only every second batch; counted afresh
    for batch in (1, 3):
        ratio, hit = (torch.cat(parts) for parts in zip(*seen[batch - 1 : batch + 1], strict=True))
        expected = {
            f"{k / 5:.1f}-{(k + 1) / 5:.1f}": float(
                hit[(ratio * 5).long().clamp_max(4) == k].mean()
            )
            for hit in [hit.float()]
            for k in range(5)
        }
        assert logged[batch] == pytest.approx(expected)


def test_the_gradient_norm_and_the_rate_are_logged(
    make_transformer: Any, make_trainer: Any
) -> None:
    logged: list[dict[str, float]] = []
    norms: list[float] = []

    class NonfiniteGuard(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            grads = [p.grad for p in pl_module.transformer.parameters() if p.grad is not None]
            norms.append(math.sqrt(sum(float(g.pow(2).sum()) for g in grads)))  # before clipping

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})

    config = configure()
    stability = config.training.stability.model_copy(update={"gradient_clip": 1e-2})
    training = config.training.model_copy(update={"stability": stability})
    module = Stage2Module(config.model_copy(update={"training": training}), make_transformer())
    make_trainer(limit_val_batches=0, callbacks=[NonfiniteGuard()]).fit(module, load(batches()))
    assert min(norms) > 1e-2
    assert [row["train/grad_norm"] for row in logged] == pytest.approx(norms, rel=1e-4)
    assert [row["train/learning_rate"] for row in logged] == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


# --- sources ------------------------------------------------------------------------------------


def sourced_batches(count: int = 4, size: int = 6) -> list[TokenBatch]:
    """Return batches whose sources are all known, three modalities each, and whose places vary."""
    random = torch.Generator().manual_seed(1)
    return [
        batch._replace(
            sources=torch.randint(V, (size, 3, *GRID), generator=random),
            origin=torch.randint(5, (size, 3), generator=random).float(),
        )
        for batch in batches(count, size)
    ]


def trained_on(
    parts: list[TokenBatch],
    make_transformer: Any,
    make_trainer: Any,
    monkeypatch: pytest.MonkeyPatch,
    coarse: bool = False,
    **loss: Any,
) -> list[Condition]:
    """Return what the network was told of each batch."""
    network = make_transformer(num_channels=2 if coarse else 3, coarse=coarse)
    module = Stage2Module(configure(**loss), network)
    spy = Spy(module.transformer, monkeypatch)
    make_trainer(limit_val_batches=0).fit(module, load(parts))
    return spy.conditions


def withheld(condition: Condition) -> Tensor:
    """Return which modalities (B, M) are withheld; they are so as a whole, or not at all."""
    assert condition.sources is not None
    absent = (condition.sources == V).flatten(2)
    assert torch.equal(absent.all(2), absent.any(2))
    return absent.all(2)


def test_without_source_dropout_every_source_is_told(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = sourced_batches()
    told = trained_on(
        parts,
        make_transformer,
        make_trainer,
        monkeypatch,
        source_dropout=0.0,
        source_free_share=0.0,
        condition_dropout=0.0,
    )
    for batch, condition in zip(parts, told, strict=True):
        assert batch.sources is not None
        assert batch.origin is not None
        assert condition.sources is not None
        assert condition.origin is not None
        assert torch.equal(condition.sources, batch.sources)
        assert torch.equal(condition.origin, batch.origin)


def test_the_coarse_volume_is_given_where_no_other_source_is(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [
        batch._replace(labels=batch.labels % 2, coarse=index % 3 == 0)
        for index, batch in enumerate(sourced_batches(60, 10))
    ]
    for batch in range(0, 60, 3):
        parts[batch] = parts[batch]._replace(sources=None, origin=None)
    told = trained_on(
        parts,
        make_transformer,
        make_trainer,
        monkeypatch,
        coarse=True,
        source_dropout=0.25,
        source_free_share=0.5,
        condition_dropout=0.0,
    )
    assert [condition.coarse for condition in told] == [batch.coarse for batch in parts]
    found = torch.cat([withheld(each) for each in told if not each.coarse])
    given = ~found[:, -1]
    assert bool(found[given][:, :2].all())
    # Half of the 400 samples are free of others, a quarter of these of the coarse volume too.
    assert abs(float(given.float().mean()) - 0.375) < 4 * math.sqrt(0.375 * 0.625 / 400)


def test_nearly_certain_source_dropout_leaves_class_and_place(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = sourced_batches()
    told = trained_on(
        parts,
        make_transformer,
        make_trainer,
        monkeypatch,
        source_dropout=1 - 1e-6,
        source_free_share=0.0,
        condition_dropout=0.0,
    )
    for batch, condition in zip(parts, told, strict=True):
        assert bool(withheld(condition).all())
        assert torch.equal(condition.channels, batch.labels)
        assert batch.origin is not None
        assert condition.origin is not None
        assert torch.equal(condition.origin, batch.origin)


def test_modalities_are_withheld_one_by_one_at_the_configured_rate(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = sourced_batches(60, 10)
    told = trained_on(
        parts,
        make_transformer,
        make_trainer,
        monkeypatch,
        source_dropout=0.3,
        source_free_share=0.0,
        condition_dropout=0.25,
    )
    dropped = torch.cat([condition.channels for condition in told]) == -1
    gone = torch.cat([withheld(condition) for condition in told])
    # Who is told no class is told no source.
    assert bool(gone[dropped].all())
    assert abs(float(dropped.float().mean()) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 600)
    rate = gone[~dropped].float()
    assert abs(float(rate.mean()) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / rate.numel())
    # Every one of the 8 subsets occurs: the modalities do not share a coin.
    assert len(torch.unique(gone[~dropped], dim=0)) == 8
    # What is told is true.
    for batch, condition in zip(parts, told, strict=True):
        assert batch.sources is not None
        assert condition.sources is not None
        kept = ~withheld(condition)
        assert torch.equal(condition.sources[kept], batch.sources[kept])


def test_batches_without_sources_draw_what_they_always_drew(
    module: Stage2Module, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a step's stream: who is told no class, then mask ratios, then masks. Nothing in between.
    spy = Spy(module.transformer, monkeypatch)
    parts = batches()
    make_trainer(limit_val_batches=0).fit(module, load(parts))
    for step, (batch, condition) in enumerate(zip(parts, spy.conditions, strict=True)):
        stream = step_stream(module.config.seed, step, 0)
        drop = torch.rand(6, generator=stream) < 0.1
        share = gamma("cosine", torch.rand(6, generator=stream), 24)
        expected = mask_tokens(batch.tokens, share, V, stream)
        assert torch.equal(condition.classes, batch.labels.masked_fill(drop, -1))
        assert condition.sources is condition.origin is None
        assert torch.equal(spy.inputs[step], expected.tokens)


def test_validation_without_sources_masks_what_it_always_masked(
    module: Stage2Module, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(module.ema.network, monkeypatch)
    parts = batches(2)
    make_trainer().validate(module, load(parts), verbose=False)
    for index, batch in enumerate(parts):
        share = gamma("cosine", (torch.arange(6) + 0.5) / 6, 24)
        stream = torch.Generator().manual_seed(index)
        assert torch.equal(spy.inputs[index], mask_tokens(batch.tokens, share, V, stream).tokens)


def test_validation_withholds_the_same_sources_each_time(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Stage2Module(configure(), make_transformer(num_channels=3))
    spy = Spy(module.ema.network, monkeypatch)
    for _ in range(2):
        make_trainer().validate(module, load(sourced_batches(3)), verbose=False)
    gone = [withheld(condition) for condition in spy.conditions]
    assert all(torch.equal(a, b) for a, b in zip(gone[:3], gone[3:], strict=True))
    assert not torch.equal(gone[0], gone[1])
    assert 0 < float(torch.cat(gone).float().mean()) < 1
    # Nobody's class is withheld when accuracy is measured.
    assert all(bool((condition.channels >= 0).all()) for condition in spy.conditions)


def test_some_samples_are_told_no_source_at_all(
    make_transformer: Any, make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = trained_on(
        sourced_batches(60, 10),
        make_transformer,
        make_trainer,
        monkeypatch,
        source_dropout=0.0,
        source_free_share=0.25,
        condition_dropout=0.0,
    )
    gone = torch.cat([withheld(condition) for condition in told])
    assert torch.equal(gone.all(1), gone.any(1))
    assert abs(float(gone.all(1).float().mean()) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 600)
    assert all(bool((condition.channels >= 0).all()) for condition in told)  # the class stays
