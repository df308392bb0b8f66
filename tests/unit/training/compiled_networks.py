"""Compile the hot paths in a process without type checks, which cannot be compiled.

    python compiled_networks.py BACKEND

prints, for both networks, how many graphs were compiled and how far gradients are off.
"""

import json
import sys
from typing import Any

import torch
from torch import Tensor, nn

from prod9.networks.autoencoder import Autoencoder
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.training.trainer import hot_paths


def autoencoder() -> Autoencoder:
    torch.manual_seed(0)
    network = Autoencoder(
        in_channels=1,
        levels=(8, 8, 8),
        num_channels=(8, 16),
        attention_levels=(False, True),
        num_res_blocks=1,
        norm_num_groups=4,
        stem_stride=1,
    )
    return awake(network)


def transformer() -> MaskedTransformer:
    torch.manual_seed(0)
    network = MaskedTransformer(
        levels=(4, 4),
        num_classes=2,
        num_sources=0,
        grid=(4, 4, 4),
        hidden_dim=32,
        num_blocks=2,
        num_heads=2,
        patch_size=1,
        mlp_ratio=2.0,
        dropout=0.0,
        token_dim=8,
        local_blocks=1,
        head="full",
    )
    return awake(network)


def awake(network: Any) -> Any:
    """Let no branch be zero, as they are at the start."""
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return network


def loss_of(network: Any) -> Tensor:
    torch.manual_seed(1)
    if isinstance(network, Autoencoder):
        # Without the rounding, which makes a step of the last digit.
        x = torch.rand(2, 1, 16, 16, 16)
        return (network.decode(network.encode(x), x.shape[2:]) - x).square().mean()
    tokens = torch.randint(17, (2, 4, 4, 4))
    mask = tokens == 16
    condition = Condition(torch.tensor([0, 1]), 2)
    return network.loss(tokens, mask, tokens.clamp_max(15), condition, 0.1)[0]


def gradients(network: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss_of(network), list(network.parameters())))


def compiled(network: nn.Module, backend: str) -> dict[str, float]:
    """Return graphs compiled and largest relative error of a gradient; a graph break raises."""
    plain = gradients(network)
    graphs: list[Any] = []

    def counted(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    torch._dynamo.reset()
    for part in hot_paths(network):
        part.compile(backend=counted, fullgraph=True)
    errors = [
        float((ours - expected).norm() / expected.norm())
        for ours, expected in zip(gradients(network), plain, strict=True)
    ]
    return {"graphs": len(graphs), "error": max(errors)}


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "autoencoder": compiled(autoencoder(), sys.argv[1]),
                "transformer": compiled(transformer(), sys.argv[1]),
            }
        )
    )
