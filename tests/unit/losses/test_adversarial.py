import math

import pytest
import torch

from prod9.losses.adversarial import adaptive_weight, discriminator_loss, generator_loss

REAL = [torch.tensor([[2.0, 0.0]]), torch.tensor([[-1.0, 0.5, 1.0, 3.0]])]
FAKE = [torch.tensor([[-2.0, 1.0]]), torch.tensor([[0.0, -0.5, 4.0, -3.0]])]


def test_hinge_generator_is_minus_the_mean_of_each_scale():
    # scale means: -0.5 and 0.125; their negatives averaged
    assert generator_loss(FAKE, "hinge").item() == pytest.approx((0.5 - 0.125) / 2)


def test_least_squares_generator():
    # (9 + 0) / 2 = 4.5; (1 + 2.25 + 9 + 16) / 4 = 7.0625
    assert generator_loss(FAKE, "least_squares").item() == pytest.approx((4.5 + 7.0625) / 2)


def test_hinge_discriminator():
    # scale 0: real (0 + 1) / 2, fake (0 + 2) / 2; scale 1: real (2 + .5 + 0 + 0) / 4,
    # fake (1 + .5 + 5 + 0) / 4
    expected = ((0.5 + 1.0) / 2 + (0.625 + 1.625) / 2) / 2
    assert discriminator_loss(REAL, FAKE, "hinge").item() == pytest.approx(expected)


def test_least_squares_discriminator():
    # scale 0: real (1 + 1) / 2, fake (4 + 1) / 2; scale 1: real (4 + .25 + 0 + 4) / 4,
    # fake (0 + .25 + 16 + 9) / 4
    expected = ((1.0 + 2.5) / 2 + (2.0625 + 6.3125) / 2) / 2
    assert discriminator_loss(REAL, FAKE, "least_squares").item() == pytest.approx(expected)


@pytest.mark.parametrize("criterion", ["hinge", "least_squares"])
def test_a_second_equal_scale_changes_nothing(criterion):
    one = discriminator_loss(REAL[:1], FAKE[:1], criterion)
    assert torch.equal(discriminator_loss(REAL[:1] * 2, FAKE[:1] * 2, criterion), one)
    assert torch.equal(generator_loss(FAKE[:1] * 2, criterion), generator_loss(FAKE[:1], criterion))


def test_hinge_generator_keeps_its_gradient_at_large_logits():
    logits = torch.full((1, 4), -50.0, requires_grad=True)
    generator_loss([logits], "hinge").backward()
    assert torch.equal(logits.grad, torch.full((1, 4), -0.25))


def test_half_precision_logits_are_summed_in_fp32():
    logits = torch.full((1, 70_000), 1.0, dtype=torch.float16)
    loss = generator_loss([logits], "hinge")
    assert loss.dtype == torch.float32
    assert loss.item() == -1.0


def test_unequal_numbers_of_scales_are_refused():
    with pytest.raises(ValueError, match="argument"):
        discriminator_loss(REAL, FAKE[:1], "hinge")


# --- the adaptive weight ------------------------------------------------------------------------


def test_closed_form_of_a_linear_toy():
    # y = W x, losses a . y and b . y have gradients a and b at y, and outer(a, x) and outer(b, x)
    # at the layer, with norms |a| |x| and |b| |x|.
    layer = torch.randn(2, 3, requires_grad=True)
    x = torch.tensor([1.0, 2.0, 2.0])  # length 3
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.5])  # lengths 5, 1/2
    weight = adaptive_weight(layer @ x, a, b, layer, max_weight=1e4, eps=0.25)
    assert weight.item() == pytest.approx(15 / (1.5 + 0.25))
    assert not weight.requires_grad


def test_the_graph_survives_for_the_backward_pass():
    layer = torch.randn(4, requires_grad=True)
    y = 2 * layer
    of_reconstruction, of_adversarial = torch.tensor([3.0, 0, 0, 4.0]), torch.ones(4)
    weight = adaptive_weight(y, of_reconstruction, of_adversarial, layer, max_weight=1e4)
    assert layer.grad is None
    (y * (of_reconstruction + weight * of_adversarial)).sum().backward()
    torch.testing.assert_close(layer.grad, 2 * (of_reconstruction + weight))


def test_clamped_where_the_adversarial_gradient_vanishes():
    layer = torch.ones(4, requires_grad=True)
    three, zero = torch.full((4,), 3.0), torch.zeros(4)
    y = layer * 1
    assert adaptive_weight(y, three, zero, layer, max_weight=7.0).item() == 7.0
    # Without the clamp: |grad| / eps = 6 / 1e-4.
    assert adaptive_weight(y, three, zero, layer, max_weight=1e9).item() == pytest.approx(6e4)


def test_zero_where_the_reconstruction_is_perfect():
    layer = torch.ones(4, requires_grad=True)
    weight = adaptive_weight(layer * 1, torch.zeros(4), torch.ones(4), layer, max_weight=1e4)
    assert weight.item() == 0.0


def test_equal_pull_at_the_last_layer_and_equal_to_differentiating_the_losses():
    torch.manual_seed(0)
    layer = torch.randn(8, 8, requires_grad=True)
    y = layer @ torch.randn(8)
    reconstruction, adversarial = y.abs().sum(), 1e-2 * y.square().sum()
    (of_reconstruction,) = torch.autograd.grad(reconstruction, y, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, y, retain_graph=True)
    arguments = (y, of_reconstruction, of_adversarial, layer)
    weight = adaptive_weight(*arguments, max_weight=1e4, eps=0.0)
    (g,) = torch.autograd.grad(reconstruction, layer, retain_graph=True)
    (h,) = torch.autograd.grad(adversarial, layer, retain_graph=True)
    assert math.isclose(g.norm().item(), (weight * h).norm().item(), rel_tol=1e-5)
    # The loss scale of fp16 drops out.
    scaled = adaptive_weight(*arguments, max_weight=1e4, eps=0.0, scale=2.0**16)
    assert scaled.item() == pytest.approx(weight.item(), rel=1e-6)
