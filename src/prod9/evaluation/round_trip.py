"""Volumes, encoded and decoded when they are read."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from prod9.config import SlidingWindowConfig
from prod9.data.volume_sets.volume_set import VolumeSet, kept_in_memory
from prod9.metrics.codebook import CodebookStats, CodebookUsage
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class RoundTrip:
    """What a tokenizer makes of a set of volumes."""

    reconstructed: VolumeSet
    """Made when read, and kept in memory while there is room."""
    codebook: Callable[[], CodebookStats]
    """Statistics of the codes of all volumes; encodes those that were not yet read."""


def round_trip(
    tokenizer: Tokenizer,
    originals: VolumeSet,
    windows: SlidingWindowConfig | None,
    remember: Callable[[int, Callable[[], Tensor]], Tensor] = lambda index, make: make(),
) -> RoundTrip:
    """Encode and decode volumes.

    Args:
        tokenizer: encodes and decodes.
        originals: volumes.
        windows: sliding windows; None: each volume at once.
        remember: given (index, function that encodes this volume), returns its tokens; may cache.
    """
    usage, counted = CodebookUsage(tokenizer.fsq.levels), set[int]()

    @torch.no_grad()
    def encoded(index: int) -> Tensor:
        volume = torch.from_numpy(originals[index])[None, None]
        if windows is None:
            return tokenizer.encode(volume.to(tokenizer.device)).cpu()
        return encode(tokenizer, volume, windows)

    def tokens_of(index: int) -> Tensor:
        tokens = remember(index, lambda: encoded(index))
        if index not in counted:
            counted.add(index)
            usage.update(tokens)
        return tokens

    @torch.no_grad()
    def read(index: int) -> np.ndarray:
        tokens = tokens_of(index)
        if windows is None:
            output = tokenizer.decode(tokens.to(tokenizer.device), originals.shape).cpu()
        else:
            output = decode(tokenizer, tokens, originals.shape, windows)
        return output[0, 0].numpy()

    def codebook() -> CodebookStats:
        for index in range(len(originals)):
            if index not in counted:
                tokens_of(index)
        return usage.compute()

    name, cached = f"{originals.name}, encoded and decoded", kept_in_memory(read, originals.shape)
    return RoundTrip(replace(originals, name=name, read=cached, files=None), codebook)
