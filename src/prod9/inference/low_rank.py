"""Copies of transformers whose modulation takes no more room than the conditions need.

The layers that turn the condition c into shifts, scales and gates hold a quarter of a transformer's
weights. With K classes and no other condition c takes K + 1 values alone: with Q an orthonormal
basis of them, W c = (W Q)(Q^T c), and the two factors are a small share of W.
"""

import copy

import torch
from torch import Tensor, nn

from prod9.model import Model, untrained
from prod9.networks.cpu_kernels.linear import Linear
from prod9.networks.transformer import MaskedTransformer


def with_small_modulation(model: Model) -> Model:
    """Return a model that computes the same, up to rounding, with fewer weights.

    The model itself where that saves nothing, or where numbers are among its conditions.
    """
    network, sizes = model.transformer, model.spec.transformer
    conditions = _conditions(network)
    if sizes.modulation_rank or conditions is None or 2 * len(conditions) > sizes.hidden_dim:
        return model
    basis, _ = torch.linalg.qr(conditions.T.double())  # (C, K + 1)
    rank = basis.shape[1]
    changed = sizes.model_copy(update={"modulation_rank": rank})
    spec = model.spec.model_copy(update={"transformer": changed})
    weights = copy.copy(network.state_dict())
    for name, layer in network.named_modules():
        if name.rpartition(".")[2] != "modulation":
            continue
        assert isinstance(layer, Linear)
        del weights[f"{name}.weight"]
        weights[f"{name}.0.weight"] = basis.T.float()
        weights[f"{name}.1.weight"] = (layer.weight.detach().double() @ basis).float()
        weights[f"{name}.1.bias"] = weights.pop(f"{name}.bias")
    small = untrained(spec)
    small.load_state_dict(weights)
    return Model(model.tokenizer, small.eval().requires_grad_(False).to(model.device), spec)


@torch.no_grad()
def _conditions(network: MaskedTransformer) -> Tensor | None:
    """Return all values of the condition (K, C) as blocks see them; None if there is no end."""
    if network.covariate_embedding is not None or network.coarse_embedding is not None:
        return None
    tables = [
        table.weight
        for table in (network.class_embedding, network.channel_embedding)
        if table is not None
    ]
    sums = tables[0] if len(tables) == 1 else tables[0][:, None] + tables[1]
    return nn.functional.silu(sums.flatten(0, -2)).cpu()
