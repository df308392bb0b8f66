"""Volumes, encoded and decoded when asked for."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from prod9.config import SlidingWindowConfig
from prod9.data.collection import Collection
from prod9.metrics.codebook import CodebookStats, CodebookUsage
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class RoundTrip:
    """What a tokenizer makes of a collection."""

    reconstructed: Collection
    """Made anew at each reading: whole scans do not all fit in memory."""
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

    @torch.no_grad()
    def read(index: int) -> np.ndarray:
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
        return output[0, 0].numpy()

    name = f"{originals.name}, encoded and decoded"
    return RoundTrip(replace(originals, name=name, read=read, files=None), usage)
