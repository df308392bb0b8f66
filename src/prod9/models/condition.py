"""What a sample is conditioned on."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from prod9.shapes import Labels


@dataclass(frozen=True)
class Condition:
    """Class of each sample; the null class (= number of classes) stands for "not told"."""

    labels: Labels
    null_label: int

    def dropped(self, drop: Bool[Tensor, " b"]) -> "Condition":
        """Return the condition with the samples marked in ``drop`` set to the null class."""
        return replace(self, labels=self.labels.masked_fill(drop, self.null_label))

    def null(self) -> "Condition":
        """Return the unconditional version of every sample."""
        return self.dropped(torch.ones_like(self.labels, dtype=torch.bool))

    def joined(self, other: "Condition") -> "Condition":
        """Return this batch followed by ``other``."""
        return replace(self, labels=torch.cat([self.labels, other.labels]))
