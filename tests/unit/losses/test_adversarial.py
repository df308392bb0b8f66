import pytest
import torch

from prod9.losses.adversarial import discriminator_loss, generator_loss

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


def test_no_scales_or_unequal_numbers_of_scales_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        generator_loss([], "hinge")
    with pytest.raises(ValueError, match="argument"):
        discriminator_loss(REAL, FAKE[:1], "hinge")
