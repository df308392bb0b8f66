import math

import pytest
import torch

from prod9.losses.adaptive import adaptive_weight


def test_closed_form_of_a_linear_toy():
    # y = W x, losses a . y and b . y: the gradients are outer(a, x) and outer(b, x), with norms
    # |a| |x| and |b| |x|.
    layer = torch.randn(2, 3, requires_grad=True)
    x = torch.tensor([1.0, 2.0, 2.0])  # length 3
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.5])  # lengths 5, 1/2
    y = layer @ x
    weight = adaptive_weight(a @ y, b @ y, layer, max_weight=1e4, eps=0.25)
    assert weight.item() == pytest.approx(15 / (1.5 + 0.25))
    assert not weight.requires_grad


def test_the_graph_survives_for_the_backward_pass():
    layer = torch.randn(4, requires_grad=True)
    reconstruction, adversarial = (layer**2).sum(), layer.sum()
    weight = adaptive_weight(reconstruction, adversarial, layer, max_weight=1e4)
    assert layer.grad is None
    (reconstruction + weight * adversarial).backward()
    torch.testing.assert_close(layer.grad, 2 * layer.detach() + weight)


def test_clamped_where_the_adversarial_gradient_vanishes():
    layer = torch.ones(4, requires_grad=True)
    reconstruction, adversarial = 3 * layer.sum(), 0 * layer.sum()
    assert adaptive_weight(reconstruction, adversarial, layer, max_weight=7.0).item() == 7.0
    # Without the clamp: |grad| / eps = 6 / 1e-4.
    free = adaptive_weight(reconstruction, adversarial, layer, max_weight=1e9)
    assert free.item() == pytest.approx(6e4)


def test_zero_where_the_reconstruction_is_perfect():
    layer = torch.ones(4, requires_grad=True)
    weight = adaptive_weight(0 * layer.sum(), layer.sum(), layer, max_weight=1e4)
    assert weight.item() == 0.0


def test_equal_pull_at_the_last_layer():
    torch.manual_seed(0)
    layer = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(8)
    reconstruction, adversarial = (layer @ x).abs().sum(), 1e-2 * (layer @ x).square().sum()
    weight = adaptive_weight(reconstruction, adversarial, layer, max_weight=1e4, eps=0.0)
    (g,) = torch.autograd.grad(reconstruction, layer, retain_graph=True)
    (h,) = torch.autograd.grad(weight * adversarial, layer)
    assert math.isclose(g.norm().item(), h.norm().item(), rel_tol=1e-5)
