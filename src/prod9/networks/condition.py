"""What a sample is conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from prod9.shapes import Labels


@dataclass(frozen=True)
class Condition:
    """What is to be drawn, from what, and where.

    A class (for scans: the target modality), the tokens of other modalities of the same place
    (sources), and the place itself.
    """

    labels: Labels
    """Class of each sample; ``null_label`` stands for "not told"."""
    null_label: int
    """The number of classes."""
    sources: Int64[Tensor, "b m gd gh gw"] | None = None
    """Tokens of the M modalities over the same cells; the mask id where one is not known."""
    origin: Float[Tensor, "b 3"] | None = None
    """The first cell of each sample, in cells of the training volumes' grid; (0, 0, 0) if None."""

    def dropped(self, drop: Bool[Tensor, " b"], absent: int) -> "Condition":
        """Tell the samples marked in ``drop`` neither class nor sources (``absent``: mask id).

        The place stays: it is a fact of the grid, not a wish.
        """
        sources = self.sources
        if sources is not None:
            sources = sources.masked_fill(drop.view(-1, 1, 1, 1, 1), absent)
        labels = self.labels.masked_fill(drop, self.null_label)
        return replace(self, labels=labels, sources=sources)

    def null(self, absent: int) -> "Condition":
        """Return the unconditional version of every sample."""
        return self.dropped(torch.ones_like(self.labels, dtype=torch.bool), absent)

    def without_sources(self, drop: Bool[Tensor, "b m"], absent: int) -> "Condition":
        """Withhold the modalities marked in ``drop``."""
        if self.sources is None:
            return self
        withheld = self.sources.masked_fill(drop.view(*drop.shape, 1, 1, 1), absent)
        return replace(self, sources=withheld)

    def window(self, cells: Sequence[slice]) -> "Condition":
        """Return what this condition says of a window of the grid."""
        d, h, w = cells
        start = torch.tensor([[c.start for c in cells]], dtype=torch.float32)
        start = start.to(self.labels.device)
        origin = start if self.origin is None else self.origin + start
        sources = None if self.sources is None else self.sources[:, :, d, h, w]
        return replace(self, sources=sources, origin=origin.expand(len(self.labels), 3))

    def joined(self, other: "Condition") -> "Condition":
        """Return this batch followed by ``other``."""
        return replace(
            self,
            labels=torch.cat([self.labels, other.labels]),
            sources=_joined(self.sources, other.sources),
            origin=_joined(self.origin, other.origin),
        )


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        assert first is second, "conditions are joined that know of different things"
        return None
    return torch.cat([first, second])
