"""Equal terms for all who learn to tokenize, and the arithmetic of the result."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from benchmarks import quality_contenders as contenders
from benchmarks import quality_per_second as quality
from benchmarks.lightning_steps import bare_trainer
from benchmarks.quality_contenders import MAISI_FSQ, VQVAE, RivalSettings, Trained
from benchmarks.timed_training import Budget, SpendBudget, mean_psnr, train_plainly
from prod9.config import MedMNISTDataConfig, Stage1Config, TrainerConfig
from prod9.config.training import SchedulerConfig
from prod9.data.array_dataset import ArrayDataset
from prod9.data.crops import Batch, volume_loader
from prod9.training.ema import EMA
from prod9.training.optimizer import rate_at
from prod9.training.trainer import TrainingData

pytestmark = pytest.mark.slow


SCHEDULE = SchedulerConfig(warmup_steps=3)
SMALL = {VQVAE: RivalSettings((8,), 1e-3, 4), MAISI_FSQ: RivalSettings((8, 8, 8), 1e-3, 4)}


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def evaluate(self) -> float:
        self.time += 50.0
        return self.time

    def budget(self, seconds: float, marks: tuple[float, ...] = ()) -> Budget:
        return Budget(seconds, SCHEDULE, marks, self.evaluate, self)


def spend(clock: Clock, budget: Budget, seconds_a_step: float) -> list[float]:
    """Spend a budget at an even pace; return the rate of each step."""
    budget.start()
    rates: list[float] = []
    while True:
        rates.append(budget.rate())
        clock.time += seconds_a_step
        if budget.step_done():
            return rates


def test_the_clock_stops_for_evaluations() -> None:
    clock = Clock()
    budget = clock.budget(20.0, (4.0, 9.0, 20.0, 300.0))
    spend(clock, budget, 2.0)
    assert budget.steps == 10
    assert [spent for spent, _ in budget.curve] == [4.0, 10.0, 20.0]
    assert clock.time == 1000.0 + 20.0 + 3 * 50.0


def test_one_evaluation_serves_marks_that_one_step_passes() -> None:
    clock = Clock()
    budget = clock.budget(8.0, (1.0, 2.0))
    spend(clock, budget, 3.0)
    assert [spent for spent, _ in budget.curve] == [3.0, 9.0]


def test_the_schedule_ends_with_the_budget() -> None:
    clock = Clock()
    rates = spend(clock, clock.budget(30.0, (7.0,)), 1.0)
    assert rates == pytest.approx([rate_at(step, 30, SCHEDULE) for step in range(30)])
    assert rates[0] == pytest.approx(1 / 3)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.01
    # Half as fast a machine: the same curve over time, with half as many steps.
    slow = spend(clock, clock.budget(30.0), 2.0)
    assert slow == pytest.approx([rate_at(step, 15, SCHEDULE) for step in range(15)])


def volumes(count: int, side: int) -> ArrayDataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 1, *[side] * 3)).astype(np.uint8)
    return ArrayDataset("synthetic", images, class_names=("one",))


class Scale(pl.LightningModule):
    """One number that a volume is multiplied by."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.25))
        self.clock = clock
        self.rates: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.clock.time += 1.0
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return (self(batch.volumes) - batch.volumes).square().mean()

    def configure_optimizers(self) -> object:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        return [optimizer], [{"scheduler": constant, "interval": "step"}]


def test_both_loops_spend_alike() -> None:
    data = MedMNISTDataConfig(dataset_name="brainregionmnist3d", batch_size=2)
    train = volume_loader(volumes(6, 4), data, (4, 4, 4), train=True, seed=0)
    expected = [0.1 * rate_at(step, 8, SCHEDULE) for step in range(8)]

    clock = Clock()
    budget, module = clock.budget(8.0, (3.0,)), Scale(clock)
    trainer = bare_trainer(TrainerConfig(accelerator="cpu"), [SpendBudget(budget)], max_epochs=99)
    trainer.fit(module, train)
    assert budget.steps == 8
    assert [spent for spent, _ in budget.curve] == [3.0, 8.0]
    assert module.rates == pytest.approx(expected)

    clock = Clock()
    budget, network = clock.budget(8.0, (3.0,)), Scale(clock)
    average = EMA[nn.Module](network, 0.5)
    path: list[float] = []

    def loss(trained: nn.Module, x: Tensor) -> Tensor:
        path.append(network.factor.item())
        clock.time += 1.0
        return (trained(x) - x).square().mean()

    train_plainly(network, loss, 0.1, train, budget, average)
    assert budget.steps == 8
    assert network.factor.item() == pytest.approx(module.factor.item(), rel=1e-5)
    followed = 0.25
    for step, value in enumerate([*path[1:], network.factor.item()], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        followed = decay * followed + (1 - decay) * value
    assert isinstance(average.network, Scale)
    assert average.network.factor.item() == pytest.approx(followed, rel=1e-5)


def test_mean_psnr_clamps_and_averages() -> None:
    def batch(value: float) -> Batch:
        return Batch(torch.full((1, 1, 4, 4, 4), value), torch.zeros(1, dtype=torch.int64), ["x"])

    # 0.2 -> 0.3: an error of 0.1, 20 dB. 0.99 -> 1.09, shown as 1: an error of 0.01, 40 dB.
    found = mean_psnr(lambda x: x + 0.1, [batch(0.2), batch(0.99)])
    assert found == pytest.approx(30.0, abs=1e-3)


def test_everybody_has_the_same_bits() -> None:
    from prod9.tokenizer import build_autoencoder

    sizes = contenders.configuration().model.autoencoder
    ours = build_autoencoder(sizes)
    assert ours.grid((28, 28, 28)) == (7, 7, 7)
    assert ours.fsq.codebook_size == 512
    x = torch.rand(1, 1, 28, 28, 28)
    with torch.no_grad():
        vq = contenders.rival_network(VQVAE, SMALL[VQVAE]).eval()
        assert vq.index_quantize(x).shape == (1, 7, 7, 7)
        assert vq.num_embeddings == 512
        assert vq(x)[0].shape == x.shape
        fsq = contenders.rival_network(MAISI_FSQ, SMALL[MAISI_FSQ]).eval()
        _, tokens = fsq.fsq(fsq.encoder(x))
        assert tokens.shape == (1, 7, 7, 7)
        assert fsq.fsq.codebook_size == 512
        assert fsq(x).shape == x.shape


def test_rival_losses() -> None:
    x = torch.full((1, 1, 2, 2, 2), 0.5)

    def vq(x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 0.5, torch.tensor(2.0)

    def plain(x: Tensor) -> Tensor:
        return x + 0.5

    for criterion, error in (("l1", 0.5), ("mse", 0.25)):
        loss = contenders.rival_loss(RivalSettings((8,), 1.0, criterion=criterion))
        assert loss(vq, x).item() == pytest.approx(error + 2)  # type: ignore[arg-type]
        assert loss(plain, x).item() == pytest.approx(error)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["prod9", VQVAE, MAISI_FSQ])
def test_each_contender_trains(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def small(config: Stage1Config) -> TrainingData:
        assert isinstance(config.data, MedMNISTDataConfig)
        assert config.data.augmentation.flip is False
        batches.append(config.data.batch_size)
        data, cube = volumes(8, 12), (12, 12, 12)
        train, val = (
            volume_loader(data, config.data, cube, train=t, seed=0) for t in (True, False)
        )
        return TrainingData(train, val, data, "small")

    monkeypatch.setattr(contenders, "training_volumes", small)
    monkeypatch.setattr(contenders, "shown", lambda config: torch.rand(2, 1, 12, 12, 12))
    monkeypatch.setattr("prod9.runtime.allocator.keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    if name == "prod9":
        trained = contenders.train_prod9(0.0, (), threads)
        assert batches == [contenders.configuration().data.batch_size]
        assert trained.weights == "averaged"
    else:
        trained = contenders.train_rival(name, SMALL[name], 0.0, (), threads)
        assert batches == [4]
        assert trained.weights in ("averaged", "last")
    assert trained.steps == 1  # the first step is done after no seconds at all
    assert trained.curve == [(trained.seconds, trained.psnr)]
    assert 0 < trained.psnr < 40
    assert trained.pictures.shape == (2, 1, 12, 12, 12)


def made_up(early: float, psnr: float) -> Trained:
    # The clock stops after the step in which a mark is passed.
    curve = [(60.1, early - 3), (120.7, early), (300.2, psnr)]
    picture = np.full((3, 1, 8, 8, 8), 0.5, np.float32)
    return Trained(psnr, 300.2, 7, 11, curve, "last", picture)


FOUND = {
    "prod9": made_up(24.0, 25.5),
    VQVAE: made_up(20.0, 24.9),
    MAISI_FSQ: made_up(22.5, 23.0),
}


def test_goals_are_held_against_the_better_rival() -> None:
    result = quality.as_result(FOUND, SMALL)
    assert result.name == "quality_per_second"
    assert [(g.needed, g.met) for g in result.goals] == [(1.0, True), (1.0, False)]
    assert [g.found for g in result.goals] == pytest.approx([1.5, 0.6])
    assert result.met is False
    assert (result.ours, result.unit, result.better) == (25.5, "dB", "higher")
    assert result.rivals == {VQVAE: 24.9, MAISI_FSQ: 23.0}
    assert result.ratio == {}
    assert result.parameters == dict.fromkeys(FOUND, 11)
    assert result.figures["curves"][VQVAE] == [[60.1, 17.0], [120.7, 20.0], [300.2, 24.9]]
    assert result.figures["trained"]["prod9"]["psnr"] == {"120": 24.0, "300": 25.5}
    assert result.sizes["rivals"][VQVAE]["batch"] == 4
    text = result.model_dump_json()
    assert type(result).model_validate_json(text).model_dump_json() == text


def test_the_picture_has_a_row_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "shown", lambda config: torch.rand(3, 1, 8, 8, 8))
    rows: list[tuple[str, Tensor]] = []
    montage = quality.montage

    def kept(given: list[tuple[str, Tensor]], **more: str) -> object:
        rows.extend(given)
        return montage(given, **more)

    monkeypatch.setattr(quality, "montage", kept)
    quality.draw(tmp_path / "picture.png", FOUND)
    assert [label.split("\n")[-1] for label, _ in rows] == [
        "original",
        "25.50 dB",
        "24.90 dB",
        "23.00 dB",
    ]
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_tuning_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[RivalSettings] = []

    def pretend(train: object, rival: str, settings: RivalSettings, *_: object) -> Trained:
        assert rival == VQVAE
        tried.append(settings)
        psnr = 20 - abs(settings.learning_rate - 3e-4) * 1e3 + settings.widths[0] / 1e3
        return made_up(0.0, psnr + (settings.batch == 8))

    monkeypatch.setattr(quality, "alone", pretend)
    assert quality.tune(1.0) == RivalSettings((128,), 3e-4, 8)
    assert tried == quality.candidates()
    assert len(set(tried)) == 4
    assert quality.RIVAL_SETTINGS[VQVAE] in quality.candidates()
