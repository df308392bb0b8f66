"""Where a training step spends its time: what is compiled, and what is computed twice."""

import importlib.util
import os
import shutil

from torch import nn

from prod9.build.trainer import resolve_device
from prod9.config import TrainerConfig
from prod9.errors import UserError
from prod9.models.autoencoder import Autoencoder
from prod9.models.checkpointing import recompute_activations
from prod9.models.transformer import MaskedTransformer


def hot_paths(network: Autoencoder | MaskedTransformer) -> list[nn.Module]:
    """Return the parts of ``network`` to be compiled, each without a graph break.

    Of the autoencoder all but quantiser and last layer (the adaptive weight is measured there, and
    a compiled graph cannot be differentiated in part). Of the transformer its blocks, which are
    equal, so that one compilation serves them all.
    """
    if isinstance(network, Autoencoder):
        return [network.encoder, network.decoder]
    return [*network.blocks]


def compile_mode(config: TrainerConfig) -> str | None:
    """Return the mode of ``torch.compile``, or None where nothing is compiled.

    Raises:
        UserError: compilation is asked for, and what it needs is not there.

    """
    on_gpu = resolve_device(config.accelerator).type == "cuda"
    triton = importlib.util.find_spec("triton") is not None
    if config.compile == "auto":
        return "default" if on_gpu and triton else None
    if config.compile == "off":
        return None
    if on_gpu and not triton:
        raise UserError(
            f"trainer.compile={config.compile} needs the package triton on a GPU; install it or "
            "set trainer.compile=off."
        )
    compilers = [os.environ.get("CXX", ""), "g++", "clang++"]
    if not on_gpu and not any(name and shutil.which(name) for name in compilers):
        raise UserError(
            f"trainer.compile={config.compile} needs a C++ compiler on a CPU; install g++ or set "
            "trainer.compile=off."
        )
    return config.compile


def prepare_training(network: Autoencoder | MaskedTransformer, config: TrainerConfig) -> None:
    """Apply ``trainer.compile`` and ``trainer.activation_checkpointing`` to a network."""
    if config.activation_checkpointing:
        recompute_activations(network)
    mode = compile_mode(config)
    if mode is not None:
        for part in hot_paths(network):
            part.compile(mode=mode)
