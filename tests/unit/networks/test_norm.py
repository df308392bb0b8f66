import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.networks.cpu_kernels.norm import NormSiLU


def plain(norm: NormSiLU, x: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 1), (3, 8)])
def test_equal_to_group_norm_then_silu(channels: int, groups: int, channels_last: bool) -> None:
    torch.manual_seed(0)
    norm = NormSiLU(channels, groups)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    # Far from zero mean, where a careless formula loses its digits.
    x = (3 + 2 * torch.randn(2, channels, 5, 6, 7)).contiguous(memory_format=layout)
    x.requires_grad_()
    gradient = torch.randn(2, channels, 5, 6, 7)
    results = []
    for function in (norm, lambda x: plain(norm, x)):
        output = function(x)
        wanted = torch.autograd.grad(output, [x, norm.weight, norm.bias], gradient)
        results.append([output, *wanted])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=2e-5, atol=2e-5)
    assert results[0][1].is_contiguous(memory_format=layout)


def test_gradient_against_finite_differences_in_fp64_of_the_formula() -> None:
    # The written-out gradient runs in fp32 alone; its mean over many probes is compared.
    torch.manual_seed(0)
    norm = NormSiLU(4, 2)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(1, 4, 3, 3, 3, requires_grad=True)
    direction, along = torch.randn(1, 4, 3, 3, 3), torch.randn(1, 4, 3, 3, 3)
    (gradient,) = torch.autograd.grad(norm(x), x, along)
    exact = NormSiLU(4, 2).double()
    exact.load_state_dict(norm.state_dict())
    step = 1e-6 * direction.double()
    with torch.no_grad():
        ahead, behind = exact(x.double() + step), exact(x.double() - step)
    slope = ((ahead - behind) * along.double()).sum() / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_keeps_its_input_alone_besides_parameters_and_statistics() -> None:
    norm = NormSiLU(8, 4)
    x = torch.randn(2, 8, 4, 4, 4, requires_grad=True)
    large: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= x.numel():
            large.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        norm(x)
    assert large == [x.data_ptr()]


def test_other_types_take_the_plain_way() -> None:
    norm = NormSiLU(8, 4).double()
    x = torch.randn(1, 8, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), plain(norm, x), rtol=0, atol=0)
    assert torch.autograd.gradcheck(norm, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm.float()(x.detach().bfloat16()).shape == x.shape
