"""Arithmetic of single operations against products counted by hand."""

from typing import Any

import pytest
import torch

from prod9.planning.flops import operation_flops

aten = torch.ops.aten


def test_a_convolution_is_a_product_for_each_output_voxel() -> None:
    x, weight = torch.ones(2, 3, 4, 4, 4), torch.ones(5, 3, 3, 3, 3)
    args = (x, weight, None, [1, 1, 1], [1, 1, 1], [1, 1, 1], False, [0, 0, 0], 1)
    out = aten.convolution.default(*args)
    expected = 2.0 * (2 * 5 * 4**3) * (3 * 3**3)
    assert operation_flops(aten.convolution.default, args, {}, out) == expected


def test_a_matrix_product() -> None:
    args = (torch.ones(3, 4), torch.ones(4, 5))
    assert operation_flops(aten.mm.default, args, {}, torch.mm(*args)) == 2.0 * 3 * 4 * 5


@pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this PyTorch has no oneDNN"
)
def test_the_linear_layer_of_onednn() -> None:
    args = (torch.ones(2, 3, 4), torch.ones(5, 4), None, "none", [], "")
    func = torch.ops.mkldnn._linear_pointwise.default
    assert operation_flops(func, args, {}, torch.ones(2, 3, 5)) == 2.0 * (2 * 3) * 4 * 5


def test_attention_is_two_products_and_its_gradient_five() -> None:
    query, key = torch.ones(2, 3, 6, 4), torch.ones(2, 3, 5, 4)
    one_product = 2.0 * (2 * 3) * 6 * 5 * 4
    forward: Any = aten._scaled_dot_product_flash_attention_for_cpu.default
    backward: Any = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    assert operation_flops(forward, (query, key, key), {}, None) == 2 * one_product
    assert operation_flops(backward, (query, query, key, key), {}, None) == 5 * one_product


def test_all_else_is_nothing() -> None:
    args = (torch.ones(3), torch.ones(3))
    assert operation_flops(aten.mul.Tensor, args, {}, torch.ones(3)) == 0.0
