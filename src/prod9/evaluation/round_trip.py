"""Volumes, encoded and decoded when asked for."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from prod9.config import SlidingWindowConfig
from prod9.data.volume_sets.open import MEMORY_BUDGET
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.metrics.codebook import CodebookStats, CodebookUsage
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class RoundTrip:
    """What a tokenizer makes of a collection."""

    reconstructed: VolumeSet
    """Made when asked for, and kept while there is room: whole scans do not all fit in memory."""
    usage: CodebookUsage
    """Codes of the volumes that were read; each volume counts once."""
    count: Callable[[int], None]
    """Count the codes of a volume, if they were not yet."""

    def codebook(self) -> CodebookStats:
        """Return the statistics of the codes of all volumes."""
        for index in range(len(self.reconstructed)):
            self.count(index)
        return self.usage.compute()


def round_trip(
    tokenizer: Tokenizer,
    originals: VolumeSet,
    windows: SlidingWindowConfig | None,
    remember: Callable[[int, Callable[[], Tensor]], Tensor] = lambda index, make: make(),
) -> RoundTrip:
    """Encode and decode volumes.

    Args:
        tokenizer: does it.
        originals: volumes.
        windows: through which, or None: at once.
        remember: given (index, what encodes that volume), returns its tokens; may remember them.
    """
    usage = CodebookUsage(tokenizer.fsq.levels)
    counted: set[int] = set()
    kept: dict[int, np.ndarray] = {}
    room = MEMORY_BUDGET // (4 * math.prod(originals.shape))

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

    def count(index: int) -> None:
        if index not in counted:
            tokens_of(index)

    @torch.no_grad()
    def read(index: int) -> np.ndarray:
        if index in kept:
            return kept[index]
        tokens = tokens_of(index)
        if windows is None:
            output = tokenizer.decode(tokens.to(tokenizer.device), originals.shape).cpu()
        else:
            output = decode(tokenizer, tokens, originals.shape, windows)
        result = output[0, 0].numpy()
        if len(kept) < room:
            kept[index] = result
        return result

    name = f"{originals.name}, encoded and decoded"
    return RoundTrip(replace(originals, name=name, read=read, files=None), usage, count)
