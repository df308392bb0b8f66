"""A step with fake tensors holds and computes what a real one does."""

from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.flops import flops_of
from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load_stage1, load_stage2
from prod9.planning.data_sizes import sizes_of
from prod9.planning.fake_step import Device, StepCost, StepRecorder, step_cost
from prod9.tokenizer import build_autoencoder

MIB = 2**20
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


def stage1(*overrides: str) -> Stage1Config:
    return load_stage1(Path("maskgit/medmnist3d/stage1/ffl.yaml"), [*SMALL1, *overrides])


def stage2(*overrides: str) -> Stage2Config:
    return load_stage2(Path("maskgit/medmnist3d/stage2/base.yaml"), [*SMALL2, *overrides])


def cost(
    config: Stage1Config | Stage2Config,
    batch: int,
    device: Device = "cpu",
    *,
    checkpointing: bool = False,
) -> StepCost:
    return step_cost(config, sizes_of(config), batch, device, checkpointing=checkpointing)


def test_storages_are_counted_once_and_freed() -> None:
    with FakeTensorMode(), StepRecorder() as recorder:
        x = torch.empty(MIB, requires_grad=True)  # 4 MiB
        view = x.view(1024, 1024)
        assert recorder.held == 4 * MIB
        y = view.sin()  # autograd keeps x
        z = y.exp()  # and z
        del y
        assert recorder.held == 8 * MIB
        z.sum().backward()
        del z
        assert x.grad is not None
        assert recorder.held == 8 * MIB  # x and its gradient
    assert recorder.peak >= 12 * MIB


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_selection_keeps_its_share(share: float) -> None:
    with FakeTensorMode(), StepRecorder(share):
        x = torch.empty(4, 100, 8, requires_grad=True)
        rows = x[torch.empty(4, 100, dtype=torch.bool)]
        assert rows.shape == (400 * share, 8)


@pytest.mark.parametrize("loss", ["ffl", "lpips"])
def test_arithmetic_and_parameters_of_stage1(loss: str) -> None:
    config = stage1(f"loss.loss_type={loss}")
    found = cost(config, 2)
    network = build_autoencoder(config.model.autoencoder)
    assert found.parameters["autoencoder"] == sum(p.numel() for p in network.parameters())
    assert ("feature network" in found.parameters) == (loss == "lpips")
    volume = torch.rand(2, 1, 28, 28, 28)
    with torch.no_grad():
        assert found.flops[0] > flops_of(lambda: network(volume))
    alone = cost(stage1("loss.adversarial.weight=0"), 2)  # ffl needs no products
    with torch.no_grad():
        forward = flops_of(lambda: network(volume))
    both = flops_of(lambda: network(volume).volume.sum().backward())
    assert alone.flops == (forward, both - forward)


def test_between_steps_there_are_five_copies_of_the_weights() -> None:
    found = cost(stage2(), 1)
    # weights, gradients, two moments, averaged weights; buffers and the batch are small
    assert found.held == pytest.approx(5 * 4 * found.parameters["transformer"], rel=0.05)


def test_checkpointing_takes_memory_off_and_adds_a_forward_pass() -> None:
    without, with_it = cost(stage2(), 8), cost(stage2(), 8, checkpointing=True)
    assert with_it.peak < 0.8 * without.peak
    again = with_it.flops[1] - without.flops[1]
    assert 0.5 * without.flops[0] < again <= without.flops[0]


@pytest.mark.parametrize("config", [stage1(), stage2()], ids=["stage 1", "stage 2"])
def test_a_gpu_in_bf16_holds_less_and_needs_no_gpu_here(
    config: Stage1Config | Stage2Config,
) -> None:
    half = cost(config, 8, "cuda")
    full = cost(
        config.model_copy(
            update={"trainer": config.trainer.model_copy(update={"precision": "fp32"})}
        ),
        8,
        "cuda",
    )
    assert half.held == full.held  # weights and moments are fp32 in both
    assert 0.4 * full.peak < half.peak < 0.95 * full.peak
    assert half.flops[0] == full.flops[0]


def test_a_wide_network_is_never_allocated() -> None:
    config = stage1("model.autoencoder.num_channels=[4096,8192]")
    found = cost(config, 2, "cuda")
    assert 4 * found.parameters["autoencoder"] > 32 * 2**30
    assert found.peak > 5 * 4 * found.parameters["autoencoder"]
