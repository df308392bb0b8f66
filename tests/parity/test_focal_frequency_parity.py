"""Our focal frequency loss against the package `focal-frequency-loss` of the paper's authors."""

import itertools

import pytest
import torch
from focal_frequency_loss import FocalFrequencyLoss as Reference

from prod9.losses.focal_frequency import FocalFrequencyLoss, focal_frequency_2d

FLAGS = [
    dict(zip(("ave_spectrum", "log_matrix", "batch_matrix"), values, strict=True))
    for values in itertools.product((False, True), repeat=3)
]


def _images(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


@pytest.mark.parametrize(
    "flags", FLAGS, ids=lambda f: "-".join(k for k, v in f.items() if v) or "-"
)
@pytest.mark.parametrize("patch_factor", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(2, 1, 12, 12), (3, 4, 18, 12), (2, 2, 18, 30)])
def test_loss_and_gradient(shape, alpha, patch_factor, flags):
    a, b = _images(*shape)
    ours, theirs = a.clone().requires_grad_(), a.clone().requires_grad_()
    loss = focal_frequency_2d(ours, b, alpha=alpha, patch_factor=patch_factor, **flags)
    reference = Reference(alpha=alpha, patch_factor=patch_factor, **flags)(theirs, b)
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-7)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "flags", FLAGS, ids=lambda f: "-".join(k for k, v in f.items() if v) or "-"
)
def test_equal_images(flags):
    a, _ = _images(2, 2, 8, 8)
    assert focal_frequency_2d(a, a, patch_factor=2, **flags) == Reference(patch_factor=2, **flags)(
        a, a
    )


@pytest.mark.parametrize("axis", [2, 3, 4])
@pytest.mark.parametrize("batch_matrix", [False, True])
def test_slices_of_volumes(axis, batch_matrix):
    a, b = _images(2, 2, 8, 10, 12)
    # All slices of all volumes as one batch of images.
    images = [v.movedim(axis, 1).flatten(0, 1) for v in (a, b)]
    reference = Reference(patch_factor=2, batch_matrix=batch_matrix)(*images)
    ours = FocalFrequencyLoss(axes=(axis,), ratio=1.0, patch_factor=2, batch_matrix=batch_matrix)
    torch.testing.assert_close(ours(a, b), reference, rtol=1e-5, atol=1e-7)


def test_half_the_slices_in_eval():
    a, b = _images(1, 1, 8, 8, 8)
    picked = [v[:, 0, 1::2].transpose(0, 1) for v in (a, b)]  # slices 1, 3, 5, 7
    ours = FocalFrequencyLoss(axes=(2,), ratio=0.5).eval()
    torch.testing.assert_close(ours(a, b), Reference()(*picked), rtol=1e-5, atol=1e-7)
