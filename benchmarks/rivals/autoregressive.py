"""MONAI's sampling of an autoregressive transformer: one token after the other."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.rivals.maskgit_networks import Size, decoder_only


class _LastToken:
    """Stands for MONAI's ``Ordering`` of the one token that is asked for."""

    def get_revert_sequence_ordering(self) -> list[int]:
        return [-1]


class _Codebook:
    """Stands for the VQVAE: its size, and tokens that stay tokens."""

    def __init__(self, size: int) -> None:
        self.num_embeddings = size

    def decode_samples(self, tokens: Tensor) -> Tensor:
        return tokens


def next_token(network: nn.Module, begin: int) -> Callable[[Tensor], Tensor]:
    """Return MONAI's ``VQVAETransformerInferer.sample``, asked for one token more.

    The function maps sequences (B, L) that start with ``begin`` to the next token (B, 1). The
    inferer keeps nothing between tokens: each is a forward pass of the whole sequence so far, which
    is why tokens can be timed one by one.
    """
    from monai.inferers import VQVAETransformerInferer

    inferer: Any = VQVAETransformerInferer()
    codebook, last = _Codebook(begin), _LastToken()

    def draw(sequence: Tensor) -> Tensor:
        drawn = inferer.sample((1, 1, 1), sequence, codebook, network, last, verbose=False)
        return drawn.view(-1, 1)

    return draw


@lru_cache(maxsize=1)
def _prepared(size: Size, batch: int, seed: int) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return how a token is drawn, and sequences (B, N) to draw it after."""
    torch.manual_seed(seed)
    network = decoder_only(size).eval()
    sequences = torch.randint(size.codes, (batch, size.tokens))
    sequences[:, 0] = size.mask_id  # says "begin"
    return next_token(network, size.mask_id), sequences


def token_seconds(lengths: Sequence[int], size: Size, batch: int, seed: int) -> list[float]:
    """Time one token after each of ``lengths``; to be called in a process of its own.

    No guidance and no class, as the inferer has none: one pass per token. The network is made by
    the first call.
    """
    draw, sequences = _prepared(size, batch, seed)
    seconds: list[float] = []
    for length in lengths:
        start = time.perf_counter()
        draw(sequences[:, :length])
        seconds.append(time.perf_counter() - start)
    return seconds


def whole_sequence(lengths: Sequence[int], seconds: Sequence[float], tokens: int) -> float:
    """Sum what all tokens cost, from what some cost: straight lines between those lengths.

    A cost a + b L + c L^2 lies below its chords; with lengths an eighth of the whole apart, or two
    eighths towards its end, by less than a hundredth of the sum while attention is the smaller part
    of the network.
    """
    return float(np.interp(np.arange(1, tokens + 1), lengths, seconds).sum())
