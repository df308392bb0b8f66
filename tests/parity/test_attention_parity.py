"""Our attention against softmax attention written out, in fp64."""

import math

import pytest
import torch
from torch import Tensor

from prod9.networks.blocks import AttentionBlock
from prod9.networks.rotary import rotary_angles
from prod9.networks.transformer import Attention

GRID = (2, 3, 2)
N = 12


def turned(vector: Tensor, angles: Tensor) -> Tensor:
    """(d,) -> (d,): pair (x_i, x_{i + d/2}) as a complex number, times e^(i angle)."""
    half = len(vector) // 2
    z = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([z.real, z.imag])


def explicit_attention(module: Attention, x: Tensor, angles: Tensor) -> Tensor:
    heads, d = module.num_heads, module.head_dim
    weight, bias = module.qkv.weight, module.qkv.bias
    dim = heads * d
    out = torch.zeros_like(x)
    for b in range(len(x)):
        mixed = torch.zeros_like(x[b])
        for h in range(heads):
            q, k, v = (
                x[b] @ weight[part * dim + h * d : part * dim + (h + 1) * d].T
                + bias[part * dim + h * d : part * dim + (h + 1) * d]
                for part in range(3)
            )
            eps = torch.finfo(x.dtype).eps
            q = q / (q.square().mean(-1, keepdim=True) + eps).sqrt() * module.q_norm.weight
            k = k / (k.square().mean(-1, keepdim=True) + eps).sqrt() * module.k_norm.weight
            q = torch.stack([turned(row, angle) for row, angle in zip(q, angles, strict=True)])
            k = torch.stack([turned(row, angle) for row, angle in zip(k, angles, strict=True)])
            scores = torch.exp(q @ k.T / math.sqrt(d))
            mixed[:, h * d : (h + 1) * d] = scores / scores.sum(1, keepdim=True) @ v
        out[b] = mixed @ module.out.weight.T + module.out.bias
    return out


@pytest.mark.parametrize(("dim", "heads"), [(24, 2), (32, 4), (16, 1)])
def test_attention_is_explicit_softmax_attention(dim: int, heads: int) -> None:
    torch.manual_seed(0)
    module = Attention(dim, heads, dropout=0.0).double().eval()
    module.q_norm.weight.data.uniform_(0.5, 2)
    module.k_norm.weight.data.uniform_(0.5, 2)
    angles = rotary_angles(GRID, dim // heads).double()
    x = 2 * torch.randn(2, N, dim).double()
    ours = module(x, angles.cos(), angles.sin())
    torch.testing.assert_close(ours, explicit_attention(module, x, angles), rtol=0, atol=1e-12)
    still = module(x, torch.ones_like(angles), torch.zeros_like(angles))
    assert (ours - still).abs().max() > 1e-3  # positions matter


@pytest.mark.parametrize(("channels", "heads"), [(8, 1), (128, 2), (72, 1), (130, 2)])
def test_the_autoencoders_attention(channels: int, heads: int) -> None:
    torch.manual_seed(0)
    module = AttentionBlock(channels, 4).double()
    torch.nn.init.normal_(module.out.weight, std=0.1)
    assert module.heads == heads
    x = torch.randn(2, channels, *GRID).double()
    d = channels // heads
    normed = module.norm(x)
    weight, bias = module.qkv.weight[:, :, 0, 0, 0], module.qkv.bias
    expected = x.clone()
    for b in range(2):
        q, k, v = (weight @ normed[b].flatten(1) + bias[:, None]).split(channels)  # (C, N)
        rows = []
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            p = torch.softmax(q[part].T @ k[part] / math.sqrt(d), 1)
            rows.append(v[part] @ p.T)
        out = module.out.weight[:, :, 0, 0, 0] @ torch.cat(rows) + module.out.bias[:, None]
        expected[b] += out.view_as(x[b])
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


def test_dropout_is_for_training_alone() -> None:
    torch.manual_seed(0)
    module = Attention(16, 2, dropout=0.5)
    angles = rotary_angles(GRID, 8)
    x = torch.randn(1, N, 16)

    def call() -> Tensor:
        return module(x, angles.cos(), angles.sin())

    module.train()
    assert not torch.equal(call(), call())
    module.eval()
    assert torch.equal(call(), call())
