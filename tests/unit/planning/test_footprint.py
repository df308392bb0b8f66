"""What ``prod9 plan`` says of memory and arithmetic is what a real step holds and does."""

import gc
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.flops import flops_of
from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load_stage1, load_stage2
from prod9.planning import fake_steps
from prod9.planning.fake_steps import (
    Rehearsed,
    TokenSizes,
    masked_share,
    rehearse_stage1,
    rehearse_stage2,
)
from prod9.planning.fake_tensors import Setting
from prod9.planning.memory_estimate import Footprint, advice, footprint
from prod9.planning.recorder import Rehearsal
from prod9.tokenizer import build_autoencoder

CPU = Setting("cpu", "fp32")
GPU = Setting("cuda", "bf16")
SMALL1 = [
    "data.dataset_name=brainregionmnist3d",
    "data.size=28",
    "model.autoencoder.num_channels=[8,16]",
    "model.autoencoder.stem_stride=2",
    "model.discriminator.channels=8",
]
SMALL2 = [
    "model.transformer.hidden_dim=48",
    "model.transformer.num_blocks=3",
    "model.transformer.num_heads=2",
    "model.transformer.token_dim=16",
]
SIZES = TokenSizes((8, 8, 8), (7, 7, 7), (7, 7, 7), 11, 0)


def stage1(*overrides: str) -> Stage1Config:
    return load_stage1(Path("maskgit/medmnist3d/stage1/ffl.yaml"), [*SMALL1, *overrides])


def stage2(*overrides: str) -> Stage2Config:
    return load_stage2(Path("maskgit/medmnist3d/stage2/base.yaml"), [*SMALL2, *overrides])


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the same steps with tensors that have numbers, counted in the same way."""

    @contextmanager
    def with_numbers(
        setting: Setting, networks: Sequence[nn.Module], kept: float = 1.0
    ) -> Generator[Rehearsal]:
        gc.collect()
        with Rehearsal(kept) as watch:
            watch.hold(networks)
            yield watch

    monkeypatch.setattr(Rehearsal, "_rows", lambda *_: None)
    monkeypatch.setattr(fake_steps, "pretend", with_numbers)
    monkeypatch.setattr(fake_steps, "bare", nullcontext)


def both(which: str, checkpointing: bool) -> Rehearsed:
    if which == "stage2":
        return rehearse_stage2(stage2(), SIZES, 3, CPU, checkpointing=checkpointing)
    config = stage1("loss.loss_type=lpips") if which == "stage1 lpips" else stage1()
    return rehearse_stage1(config, (28, 28, 28), 2, CPU, checkpointing=checkpointing)


CASES = [
    ("stage1 ffl", False),
    ("stage1 ffl", True),
    ("stage1 lpips", False),
    ("stage2", False),
    ("stage2", True),
]


@pytest.mark.parametrize(("which", "checkpointing"), CASES)
def test_a_rehearsal_holds_what_a_real_step_holds(
    which: str,
    checkpointing: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # All tokens are masked: how many is decided by numbers.
    monkeypatch.setattr(fake_steps, "masked_share", lambda *_: 1.0)
    monkeypatch.setattr("prod9.training.stage2_module.gamma", lambda _, ratio, cells: ratio * 0 + 1)
    fake = both(which, checkpointing)
    request.getfixturevalue("real")
    torch.manual_seed(0)
    taken = both(which, checkpointing)
    assert fake.parameters == taken.parameters
    assert fake.standing == pytest.approx(taken.standing, rel=0.01)
    assert fake.peak == pytest.approx(taken.peak, rel=0.03)
    for name, (forward, backward) in taken.flops.items():
        assert fake.flops[name] == (forward, backward)


def test_standing_memory_is_four_copies_and_the_averaged_one() -> None:
    found = rehearse_stage2(stage2(), SIZES, 1, CPU, checkpointing=False)
    # weights, gradients, two moments, the averaged weights; buffers and the batch are small
    assert found.standing == pytest.approx(5 * 4 * found.parameters["transformer"], rel=0.05)


def test_arithmetic_of_the_autoencoder_is_what_was_counted() -> None:
    config = stage1("loss.adversarial.weight=0")
    found = rehearse_stage1(config, (28, 28, 28), 2, CPU, checkpointing=False)
    network = build_autoencoder(config.model.autoencoder)
    volume = torch.rand(2, 1, 28, 28, 28)
    with torch.no_grad():
        forward = flops_of(lambda: network(volume))
    both_ways = flops_of(lambda: network(volume).volume.sum().backward())
    assert found.flops["autoencoder"] == (forward, both_ways - forward)


def test_checkpointing_takes_memory_off_and_adds_a_forward_pass() -> None:
    without = rehearse_stage2(stage2(), SIZES, 8, CPU, checkpointing=False)
    with_it = rehearse_stage2(stage2(), SIZES, 8, CPU, checkpointing=True)
    assert with_it.peak < 0.8 * without.peak
    forward, backward = without.flops["transformer"]
    again = with_it.flops["transformer"][1] - backward
    assert 0.5 * forward < again <= forward


def test_a_gpu_in_bf16_holds_less_and_needs_no_gpu_here() -> None:
    for checkpointing in (False, True):
        config = stage1()
        narrow = rehearse_stage1(config, (28, 28, 28), 4, GPU, checkpointing=checkpointing)
        wide = rehearse_stage1(
            config, (28, 28, 28), 4, Setting("cuda", "fp32"), checkpointing=checkpointing
        )
        assert 0.4 * wide.peak < narrow.peak < 0.95 * wide.peak
        assert narrow.flops["autoencoder"] == wide.flops["autoencoder"]


def test_a_plan_of_stage2_on_a_gpu() -> None:
    narrow = rehearse_stage2(stage2(), SIZES, 8, GPU, checkpointing=False)
    wide = rehearse_stage2(stage2(), SIZES, 8, Setting("cuda", "fp32"), checkpointing=False)
    assert narrow.standing == wide.standing  # weights and moments are fp32 in both
    assert narrow.peak < 0.95 * wide.peak


def test_masked_share() -> None:
    # cosine: the mean of cos(pi r / 2) is 2 / pi, its variance 1/2 - 4 / pi^2
    mean, deviation = 2 / torch.pi, (0.5 - 4 / torch.pi**2) ** 0.5
    assert masked_share(stage2(), 512, 64) == pytest.approx(mean + 2 * deviation / 8, abs=1e-3)
    assert masked_share(stage2(), 512, 1) == 1.0


def linear(fixed: float, each: float, checkpointed: float) -> Footprint:
    """Return a footprint of ``fixed`` bytes and ``each`` per sample, slack included."""

    def rehearse(batch: int, checkpointing: bool) -> Rehearsed:
        held = fixed + batch * (checkpointed if checkpointing else each)
        return Rehearsed(batch, {}, int(fixed), int(held), {}, ())

    return Footprint(rehearse, CPU, checkpointing=False)


def test_the_largest_batch_is_the_last_that_fits() -> None:
    foot = linear(1e9, 1e8, 2e7)
    for limit in (1.8e9, 3e9, 1e10):
        largest = foot.largest(limit)
        assert foot.needed(largest) <= limit < foot.needed(largest + 1)
    assert foot.largest(1e9) == 0


def test_what_to_lower_and_by_how_much() -> None:
    config = stage1("data.batch_size=64")
    foot = linear(1e9, 1e8, 2e7)
    assert advice(config, foot, 1e11) == []
    largest = foot.largest(4e9)
    lower, checkpointing = advice(config, foot, 4e9)
    assert lower == f"lower data.batch_size from 64 to {largest}"
    assert checkpointing == "set trainer.activation_checkpointing=true"  # 64 fit then
    (_, also) = advice(config, foot, 2e9)
    with_it = foot.largest(2e9, True)
    assert also.endswith(f"activation_checkpointing=true and data.batch_size={with_it}")
    assert foot.needed(with_it, True) <= 2e9 < foot.needed(with_it + 1, True)


def test_where_nothing_fits_the_crop_must_shrink() -> None:
    config = load_stage1(Path("maskgit/brats/stage1/ffl.yaml"))
    (way,) = advice(config, linear(1e9, 6e9, 6e9), 4e9)
    assert way.startswith("set data.batch_size=1 sliding_window.roi_size=[40, 40, 40]")


def test_a_wide_network_is_never_allocated() -> None:
    config = load_stage1(
        Path("maskgit/medmnist3d/stage1/large.yaml"), ["model.autoencoder.num_channels=[4096,8192]"]
    )
    found = footprint(config, "cuda").rehearse(2, False)
    assert 4 * found.parameters["autoencoder"] > 64 * 2**30
    assert found.peak > 5 * 4 * found.parameters["autoencoder"]
