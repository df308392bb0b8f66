"""Both sides of the Stage 1 benchmark do the work that its title names."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks import stage1_step
from benchmarks.contender import Goal
from benchmarks.rivals import monai_autoencoders as rivals
from benchmarks.stage1_step import KL, MAISI
from prod9.config import Stage1Config
from prod9.config.load import load
from prod9.losses.focal_frequency import FocalFrequencyLoss
from prod9.losses.perceptual import MedicalNetPerceptualLoss

pytestmark = pytest.mark.slow


def test_cases_have_the_sizes_of_the_shipped_configurations() -> None:
    cases = {case.name: case for case in stage1_step.cases()}
    assert list(cases) == [
        f"stage1_step_{name}_{side}" for name in ("ffl", "base") for side in (28, 64)
    ]
    for name, loss in (("ffl", "ffl"), ("base", "lpips")):
        shipped = load(Path(f"maskgit/medmnist3d/stage1/{name}.yaml"), Stage1Config)
        for side in (28, 64):
            case = cases[f"stage1_step_{name}_{side}"]
            assert case.sizes["widths"] == list(shipped.model.autoencoder.num_channels)
            assert case.sizes["loss"] == shipped.loss.loss_type == loss
            assert case.sizes["rivals_side"] == {28: 32, 64: 64}[side]
            assert case.per_repeat == {"volumes": case.sizes["batch"]}
            assert [c.name for c in case.contenders] == ["prod9", MAISI, KL]
            assert set(case.goals) == {
                Goal(MAISI, ratio=2.0),
                Goal(KL, ratio=1.5),
                Goal(MAISI, less_memory=True),
                Goal(KL, less_memory=True),
            }
            shared = case.contenders[0].arguments
            for rival in case.contenders[1:]:
                assert rival.arguments == {"network": rival.name, **shared}
    batches = {name: case.sizes["batch"] for name, case in cases.items()}
    assert list(batches.values()) == [8, 2, 2, 1]


@pytest.mark.parametrize("network", [MAISI, KL])
def test_networks_are_alike(network: str) -> None:
    config = stage1_step.configuration("ffl", 28, 1)
    module = stage1_step.build_module(config)
    assert module.adversarial_active()
    training = stage1_step.monai_training(network, config)
    volumes = stage1_step.images(1, 28, seed=0)
    seen = stage1_step.padded(volumes, 8)
    ours = module.autoencoder.encode(volumes)
    reconstruction, mean, deviation = training.autoencoder(seen)
    assert ours.shape == mean.shape == deviation.shape == (1, 3, 4, 4, 4)
    assert reconstruction.shape == (1, 1, 32, 32, 32)
    assert torch.equal(training.autoencoder(seen)[1], mean)  # no dropout
    assert type(training.feature_loss) is type(module.feature_loss.term) is FocalFrequencyLoss
    assert training.feature_weight == config.loss.focal_frequency.weight
    stage1 = training.autoencoder.state_dict()
    widths = {shape[0] for name, w in stage1.items() if len(shape := w.shape) == 5}
    assert widths == {*config.model.autoencoder.num_channels, 1, 3}


def test_the_wide_configuration_compares_medicalnet_features() -> None:
    config = stage1_step.configuration("base", 28, 1)
    loss = stage1_step.build_module(config).feature_loss
    assert isinstance(loss.term, MedicalNetPerceptualLoss)
    assert loss.weight == config.loss.perceptual.weight
    a, b = stage1_step.images(2, 16, seed=1).split(1)
    assert loss(a, a) == 0
    assert loss(a, b) > 1e-4


@pytest.mark.parametrize("network", ["prod9", MAISI, KL])
def test_a_repeat_trains_both_networks(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[nn.Module] = []
    count = stage1_step.parameters

    def parameters(*networks: nn.Module) -> int:
        kept.extend(networks)
        return count(*networks)

    monkeypatch.setattr(stage1_step, "parameters", parameters)
    what = {"name": "ffl", "side": 16, "batch": 1, "seed": 0}
    if network == "prod9":
        monkeypatch.setattr("prod9.runtime.allocator.keep_freed_memory", lambda: True)
        work = stage1_step.prod9_step(**what)
    else:
        work = stage1_step.monai_step(network=network, **what)
    assert len(kept) == 2
    before = [[p.detach().clone() for p in trained.parameters()] for trained in kept]
    work.run()
    for trained, old in zip(kept, before, strict=True):
        moved = [not torch.equal(p, o) for p, o in zip(trained.parameters(), old, strict=True)]
        # The hinge of an undecided discriminator pulls its last bias both ways, equally hard.
        assert sum(moved) >= len(moved) - (trained is kept[1])
    assert work.parameters == sum(p.numel() for trained in kept for p in trained.parameters())
    # Forward, and between one and two more for the gradients, of all convolutions together.
    forward = _forward_flops(kept, stage1_step.images(1, 16, seed=0))
    assert work.flops is not None
    assert 2 * forward < work.flops < 4 * forward


def _forward_flops(networks: list[nn.Module], volumes: Tensor) -> int:
    """Count a generator's pass, and the discriminator's over real and fake, from output shapes."""
    total = 0

    def add(layer: nn.Conv3d, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += 2 * output.numel() * layer.weight[0].numel()

    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Conv3d):
                layer.register_forward_hook(add)
    with torch.no_grad():
        networks[0](volumes)
        networks[1](torch.cat([volumes, volumes]))
    return total


def test_padding_keeps_the_volume_in_the_middle() -> None:
    volumes = stage1_step.images(2, 28, seed=0)
    assert volumes.min() >= 0
    assert volumes.max() <= 1
    larger = stage1_step.padded(volumes, 8)
    assert larger.shape == (2, 1, 32, 32, 32)
    assert torch.equal(larger[..., 2:30, 2:30, 2:30], volumes)
    assert torch.equal(larger[..., 0, :, :], larger[..., 2, :, :])
    assert stage1_step.padded(volumes, 4) is volumes
    assert stage1_step.padded(volumes[..., :27, :27, :27], 4).shape == volumes.shape


class _Halves(nn.Module):
    """Reconstructs a scaled volume; its latent has a known mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        latent = torch.ones(len(x), 2, 2, 2, 2)
        return self.scale * x, 3 * latent, 2 * latent


class _Judge(nn.Module):
    """Its logit is the volume's mean times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.25))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, self.weight * x.mean((1, 2, 3, 4))]


def test_the_tutorials_step_by_hand() -> None:
    judge, halves = _Judge(), _Halves()
    training = rivals.TutorialTraining(halves, judge, nn.MSELoss(), feature_weight=7.0)
    terms = training.step(torch.ones(2, 1, 4, 4, 4))
    kl = 0.5 * (9 + 4 - torch.tensor(4.0).log().item() - 1) * 16
    assert terms["l1"].item() == pytest.approx(0.5)
    assert terms["kl"].item() == pytest.approx(rivals.KL_WEIGHT * kl)
    assert terms["feature"].item() == pytest.approx(7 * 0.25)
    fooling = (0.25 * 0.5 - 1) ** 2
    assert terms["adversarial"].item() == pytest.approx(rivals.ADVERSARIAL_WEIGHT * fooling)
    told_apart = 0.5 * ((0.25 * 0.5) ** 2 + (0.25 - 1) ** 2)
    assert terms["discriminator"].item() == pytest.approx(rivals.ADVERSARIAL_WEIGHT * told_apart)
    # Adam's first step is the learning rate, against the sign of the gradient.
    assert halves.scale.item() == pytest.approx(0.5 + rivals.LEARNING_RATE, abs=1e-7)
    assert judge.weight.item() == pytest.approx(0.25 + rivals.LEARNING_RATE, abs=1e-7)
    # Of the discriminator's own loss alone: what the generator's pass left was thrown away.
    assert judge.weight.grad is not None
    gradient = 0.01 * 0.5 * (2 * 0.25 * 0.5 * 0.5 + 2 * (0.25 - 1))
    assert judge.weight.grad.item() == pytest.approx(gradient)
