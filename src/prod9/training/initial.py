"""Fine-tuning: training that starts from the weights of another model."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from prod9.errors import Prod9Error
from prod9.model import TransformerSpec, network_of
from prod9.runtime.console import say
from prod9.tokenizer import Tokenizer
from prod9.torch_files import read_export
from prod9.training.stage1_module import Stage1Module
from prod9.training.stage2_module import Stage2Module


def start_stage1(module: Stage1Module, path: Path) -> None:
    """Give the autoencoder the weights of the tokenizer in ``path``.

    Raises:
        Prod9Error: a file that cannot be read, or a network of other sizes.
    """
    weights = Tokenizer.load(path).autoencoder.state_dict()
    if fresh := transfer(module.autoencoder, weights):
        raise Prod9Error(
            f"init_from: the tokenizer in {path} has other sizes ({fresh[0]}); give "
            "model.autoencoder the keys of its configuration."
        )
    module.ema.network.load_state_dict(module.autoencoder.state_dict())
    say(f"Stage 1 starts from {path}")


def start_stage2(module: Stage2Module, path: Path) -> None:
    """Give the transformer the weights of ``path`` wherever they fit.

    Classes, channels and covariates of another number start anew.

    Raises:
        Prod9Error: a file that cannot be read, or a network of other sizes.
    """
    made_by = "prod9-train-transformer train"
    _, network = read_export(path, "transformer", TransformerSpec, network_of, made_by)
    fresh = transfer(module.transformer, network.state_dict())
    conditions = ("class_embedding", "channel_embedding", "source_embedding", "covariate_embedding")
    if other := [name for name in fresh if not name.startswith(conditions)]:
        raise Prod9Error(
            f"init_from: the transformer in {path} has other sizes ({other[0]}); give "
            "model.transformer the keys of its configuration, and Stage 1 its FSQ levels."
        )
    module.ema.network.load_state_dict(module.transformer.state_dict())
    anew = f"; new: {', '.join(dict.fromkeys(n.split('.')[0] for n in fresh))}" if fresh else ""
    say(f"Stage 2 starts from {path}{anew}")


@torch.no_grad()
def transfer(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy all weights of equal name and shape; return the names of all others of ``network``."""
    own = network.state_dict()
    fits = {name for name, value in weights.items() if _shape(own.get(name)) == value.shape}
    network.load_state_dict(own | {name: weights[name] for name in fits})
    return [name for name in own if name not in fits]


def _shape(value: Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape
