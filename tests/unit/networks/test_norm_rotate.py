import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.networks.cpu_kernels.norm_rotate import NormRotate
from prod9.networks.rotary import rotary_angles, rotate

GRID = (2, 3, 4)


def angles(dim: int) -> tuple[Tensor, Tensor]:
    turned = rotary_angles(GRID, dim)
    return turned.cos(), turned.sin()


def norm_of(dim: int) -> NormRotate:
    norm = NormRotate(dim)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    return norm


@pytest.mark.parametrize("strided", [True, False])
@pytest.mark.parametrize("dim", [8, 12, 64])
def test_equal_to_pytorchs_norm_then_the_rotation(dim: int, strided: bool) -> None:
    torch.manual_seed(0)
    norm = norm_of(dim)
    cos, sin = angles(dim)
    x = 3 * torch.randn(2, 24, 5, dim) if strided else 3 * torch.randn(2, 5, 24, dim)
    x = x.transpose(1, 2) if strided else x  # as attention hands them over
    x.requires_grad_()
    gradient = torch.randn(2, 5, 24, dim)

    def plain(x: Tensor) -> Tensor:
        return rotate(F.rms_norm(x, (dim,), norm.weight), cos, sin)

    results = []
    for output in (norm(x, cos, sin), plain(x)):
        wanted = torch.autograd.grad(output, [x, norm.weight], gradient)
        results.append([output, *wanted])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5)


def test_turns_a_pair_as_by_hand() -> None:
    norm = NormRotate(4)
    norm.weight.data[:] = torch.tensor([1.0, 2.0, 1.0, 3.0])
    x = torch.tensor([3.0, 0.0, 4.0, 5.0]).view(1, 1, 1, 4)  # root of the mean square: sqrt(12.5)
    cos, sin = torch.tensor([[0.6, 1.0]]), torch.tensor([[0.8, 0.0]])
    turned = norm(x, cos, sin).flatten() * 12.5**0.5
    expected = [0.6 * 3 - 0.8 * 4, 2 * 0.0, 0.8 * 3 + 0.6 * 4, 3 * 5.0]
    torch.testing.assert_close(turned, torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type_and_computes_in_fp32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm = norm_of(8)
    cos, sin = angles(8)
    x = torch.randn(1, 2, 24, 8).to(dtype)
    with torch.autocast("cpu", dtype):
        turned = norm(x, cos, sin)
    assert turned.dtype == dtype
    torch.testing.assert_close(turned, norm(x.float(), cos, sin).to(dtype), rtol=0, atol=0)


def test_a_row_of_zeros_stays_zero_with_a_finite_gradient() -> None:
    norm = NormRotate(8)
    cos, sin = angles(8)
    x = torch.zeros(1, 1, 24, 8, requires_grad=True)
    turned = norm(x, cos, sin)
    turned.sum().backward()
    assert not turned.any()
    assert x.grad is not None
    assert x.grad.isfinite().all()
