"""Where a training step spends its time: what is compiled, and what is computed twice."""

from torch import nn

from prod9.config import TrainerConfig
from prod9.networks.activation_checkpointing import recompute_activations
from prod9.networks.autoencoder import Autoencoder
from prod9.networks.transformer import MaskedTransformer
from prod9.training.trainer import compile_mode


def hot_paths(network: Autoencoder | MaskedTransformer) -> list[nn.Module]:
    """Return the parts of ``network`` to be compiled, each without a graph break.

    Of the autoencoder all but quantiser and last layer (the adaptive weight is measured there, and
    a compiled graph cannot be differentiated in part). Of the transformer its blocks, which are
    equal, so that one compilation serves them all.
    """
    if isinstance(network, Autoencoder):
        return [network.encoder, network.decoder]
    return [*network.blocks]


def prepare_training(network: Autoencoder | MaskedTransformer, config: TrainerConfig) -> None:
    """Apply ``trainer.compile`` and ``trainer.activation_checkpointing`` to a network."""
    if config.activation_checkpointing:
        recompute_activations(network)
    mode = compile_mode(config)
    if mode is not None:
        for part in hot_paths(network):
            part.compile(mode=mode)
