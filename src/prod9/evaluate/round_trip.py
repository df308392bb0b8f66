"""Volumes, encoded and decoded when asked for."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from prod9.config import SlidingWindowConfig
from prod9.data.collection import Collection
from prod9.data.collection_files import MEMORY_BUDGET
from prod9.metrics.codebook import CodebookStats, CodebookUsage
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class RoundTrip:
    """What a tokenizer makes of a collection."""

    reconstructed: Collection
    """Made when asked for, and kept while there is room: whole scans do not all fit in memory."""
    usage: CodebookUsage
    """Codes of the volumes that were read; each volume counts once."""

    def codebook(self) -> CodebookStats:
        """Return the statistics of the codes."""
        return self.usage.compute()


def round_trip(
    tokenizer: Tokenizer, originals: Collection, windows: SlidingWindowConfig | None
) -> RoundTrip:
    """Encode and decode volumes: through ``windows``, or at once where that is None."""
    usage = CodebookUsage(tokenizer.fsq.levels)
    counted: set[int] = set()
    kept: dict[int, np.ndarray] = {}
    room = MEMORY_BUDGET // (4 * math.prod(originals.shape))

    @torch.no_grad()
    def read(index: int) -> np.ndarray:
        if index in kept:
            return kept[index]
        volume = torch.from_numpy(originals[index])[None, None]
        if windows is None:
            tokens = tokenizer.encode(volume.to(tokenizer.device))
            output = tokenizer.decode(tokens, volume.shape[2:]).cpu()
        else:
            tokens = encode(tokenizer, volume, windows)
            output = decode(tokenizer, tokens, volume.shape[2:], windows)
        if index not in counted:
            counted.add(index)
            usage.update(tokens)
        result = output[0, 0].numpy()
        if len(kept) < room:
            kept[index] = result
        return result

    name = f"{originals.name}, encoded and decoded"
    return RoundTrip(replace(originals, name=name, read=read, files=None), usage)
