"""Copies of what was trained whose weights fit into fp16: half the size on disk, or less."""

import copy
from typing import TypeVar

from torch import nn

from prod9.errors import Prod9Error
from prod9.inference.low_rank import with_small_modulation
from prod9.model import Model
from prod9.tokenizer import Tokenizer

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def model_in_half(model: Model) -> Model:
    """Return a model whose weights are rounded to fp16 (and computed with in fp32 as before).

    Its modulation has no more weights than it needs (:mod:`prod9.inference.low_rank`).

    Raises:
        Prod9Error: a weight is too large for fp16.
    """
    tokenizer, model = tokenizer_in_half(model.tokenizer), with_small_modulation(model)
    spec = model.spec.model_copy(update={"tokenizer_digest": tokenizer.digest})
    return Model(tokenizer, _rounded(model.transformer), spec)


def tokenizer_in_half(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer whose weights are rounded to fp16; raises as :func:`model_in_half`."""
    return Tokenizer(tokenizer.spec, _rounded(tokenizer.autoencoder))


def _rounded(network: NetworkT) -> NetworkT:
    result = copy.deepcopy(network)
    for weight in result.parameters():
        weight.data = weight.data.half().float()
        if not weight.isfinite().all():
            raise Prod9Error("a weight is too large for fp16; save the model without `half`.")
    return result
