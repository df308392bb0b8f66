"""Muon against its formula, PyTorch's own for two axes, and AdamW for all that is no matrix."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from prod9.config import Stage2Config
from prod9.config.load import load
from prod9.errors import Prod9Error
from prod9.training.muon import Muon, is_matrix, orthogonalized
from prod9.training.strategies import require_strategy

SETTINGS = {"lr": 0.01, "matrix_lr": 0.02, "betas": (0.9, 0.99), "weight_decay": 0.1, "fused": True}


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape) @ torch.diag(torch.logspace(0, -1.5, shape[1]))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalized(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.4
    assert values.max() < 1.25
    # The directions are those of the matrix: U^T X V is diagonal.
    inner = u.T @ found @ vh.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-3
    torch.testing.assert_close(orthogonalized(1000 * matrix), found, atol=1e-4, rtol=1e-3)


def test_a_matrix_of_zeros_stays() -> None:
    assert orthogonalized(torch.zeros(20, 30)).abs().max() == 0


def test_two_axes_as_pytorchs_own_muon() -> None:
    """Which iterates in bf16: equal up to that."""
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(48, 32))
    theirs = copy.deepcopy(ours)
    mine = Muon([("weight", ours)], **SETTINGS)
    other = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    start = ours.detach().clone()
    for _ in range(5):
        gradient = torch.randn(48, 32)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        other.step()
    moved = [(p.detach() - start).flatten() for p in (ours, theirs)]
    assert torch.cosine_similarity(*moved, dim=0) > 0.999
    assert moved[0].norm() == pytest.approx(float(moved[1].norm()), rel=0.02)


def test_a_convolution_is_the_matrix_of_its_outputs_and_inputs_in_any_layout() -> None:
    torch.manual_seed(0)
    flat = nn.Parameter(torch.randn(20, 18 * 27))
    layout = torch.channels_last_3d
    kernel = nn.Parameter(flat.detach().clone().view(20, 18, 3, 3, 3).to(memory_format=layout))
    both = [Muon([("weight", each)], **SETTINGS) for each in (flat, kernel)]
    for _ in range(3):
        gradient = torch.randn(20, 18, 3, 3, 3)
        flat.grad = gradient.flatten(1)
        kernel.grad = gradient.to(memory_format=layout)
        for optimizer in both:
            optimizer.step()
    torch.testing.assert_close(kernel.detach().flatten(1), flat.detach())
    assert kernel.is_contiguous(memory_format=layout)


def test_all_else_is_adamws() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"inner": nn.Linear(32, 32), "head": nn.Linear(32, 32)})
    names = [name for name, p in network.named_parameters() if is_matrix(name, p)]
    assert names == ["inner.weight"]
    twin = copy.deepcopy(network)
    ours = Muon(network.named_parameters(), **SETTINGS)
    plain = torch.optim.AdamW(
        twin.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )
    for _ in range(3):
        for p, q in zip(network.parameters(), twin.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        ours.step()
        plain.step()
    for (name, p), q in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q) == (name != "inner.weight")


def test_it_continues_from_its_state_and_leaves_what_has_no_gradient() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 32)
    gradients = [torch.randn(32, 32) for _ in range(4)]

    def steps(target: nn.Linear, optimizer: Muon, some: list[torch.Tensor]) -> None:
        for gradient in some:
            target.weight.grad = gradient.clone()
            optimizer.step()

    whole = copy.deepcopy(layer)
    steps(whole, Muon(whole.named_parameters(), **SETTINGS), gradients)
    first = Muon(layer.named_parameters(), **SETTINGS)
    steps(layer, first, gradients[:2])
    again = Muon(layer.named_parameters(), **SETTINGS)
    again.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(layer, again, gradients[2:])
    assert torch.equal(layer.weight, whole.weight)
    before = layer.weight.detach().clone()
    layer.zero_grad()
    again.step()
    assert torch.equal(layer.weight, before)


def test_split_weights_are_refused_before_training() -> None:
    wanted = ["training.optimizer.name=muon", "trainer.strategy=fsdp"]
    config = load(Path("maskgit/demo/stage2.yaml"), Stage2Config, wanted)
    with pytest.raises(Prod9Error, match="name=muon needs whole; set"):
        require_strategy(config)
