"""What a sample is conditioned on."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from prod9.shapes import Labels

NOT_GIVEN = -1
"""Index in place of a class, channel or category that is not given; NaN for a number."""


@dataclass(frozen=True)
class Condition:
    """What is to be generated, from what, and where."""

    classes: Labels
    """Class of each sample, or ``NOT_GIVEN``."""
    channels: Labels
    """Target channel of each sample, or ``NOT_GIVEN``."""
    sources: Int64[Tensor, "b c gd gh gw"] | None = None
    """Tokens of the C channels over the same cells; the mask id where one is not known. A model
    with a coarse grid has one more, the last: what the coarse volume shows of the target."""
    origin: Float[Tensor, "b 3"] | None = None
    """The first cell of each sample, in cells of the training volumes' grid; (0, 0, 0) if None."""
    covariates: Float[Tensor, "b v"] | None = None
    """Numbers, and indices of categories; NaN where one is not given, as all are if None."""
    coarse: bool = False
    """Whether the cells are the whole volume's on the coarse grid (:mod:`prod9.coarse`)."""

    @classmethod
    def of(
        cls,
        labels: Labels,
        num_channels: int,
        sources: Tensor | None = None,
        origin: Tensor | None = None,
        covariates: Tensor | None = None,
        *,
        coarse: bool = False,
    ) -> "Condition":
        """Return the condition of labels (B,): class * ``num_channels`` + channel.

        A label below 0 names a channel alone: channel - ``num_channels``.
        """
        classes = labels.div(num_channels, rounding_mode="floor")
        channels = labels.remainder(num_channels)
        return cls(classes, channels, sources, origin, covariates, coarse)

    def dropped(self, drop: Bool[Tensor, " b"], absent: int) -> "Condition":
        """Withhold all but the place from the samples marked in ``drop`` (``absent``: mask id)."""
        covariates = self.covariates
        if covariates is not None:
            covariates = covariates.masked_fill(drop[:, None], torch.nan)
        return replace(
            self.without_sources(drop[:, None], absent),
            classes=self.classes.masked_fill(drop, NOT_GIVEN),
            channels=self.channels.masked_fill(drop, NOT_GIVEN),
            covariates=covariates,
        )

    def null(self, absent: int) -> "Condition":
        """Return the unconditional version of every sample."""
        return self.dropped(torch.ones_like(self.classes, dtype=torch.bool), absent)

    def without_sources(self, drop: Bool[Tensor, "b c"], absent: int) -> "Condition":
        """Withhold the source channels marked in ``drop`` (one column: all alike)."""
        if self.sources is None:
            return self
        return replace(self, sources=self.sources.masked_fill(drop[:, :, None, None, None], absent))

    def chain(self, absent: int, labels: Sequence[int] = ()) -> "list[tuple[str, Condition]]":
        """Return this condition step by step, each with the one before it and something more.

        ``rest`` (target channel, images), ``class``, ``labels``, ``covariates``; a step that would
        add nothing to any sample is left out.

        Args:
            absent: the mask id.
            labels: the sources that are labels.
        """
        null, sources = self.null(absent), self.sources
        images = null.sources
        if sources is not None:
            drop = torch.zeros_like(sources[:, :, 0, 0, 0], dtype=torch.bool)
            drop[:, [*labels]] = True
            images = self.without_sources(drop, absent).sources
        one = replace(null, channels=self.channels, sources=images)
        two = replace(one, classes=self.classes)
        three = replace(two, sources=sources)
        steps = {"rest": one, "class": two, "labels": three, "covariates": self}
        found, before = list[tuple[str, Condition]](), null
        for name, step in steps.items():
            if not before.same(step):
                found.append((name, step))
            before = step
        return found

    def same(self, other: "Condition") -> bool:
        """Whether the same is given, of all samples."""
        pairs = [(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        return all(
            torch.equal(a.nan_to_num(nan=torch.inf), b.nan_to_num(nan=torch.inf))
            for a, b in pairs
            if isinstance(a, Tensor) and isinstance(b, Tensor)
        )

    def window(self, cells: Sequence[slice]) -> "Condition":
        """Return the part of this condition for a window of the grid."""
        d, h, w = cells
        start = torch.tensor([[float(c.start) for c in cells]], device=self.classes.device)
        origin = start if self.origin is None else self.origin + start
        sources = None if self.sources is None else self.sources[:, :, d, h, w]
        return replace(self, sources=sources, origin=origin.expand(len(self.classes), 3))

    def joined(self, other: "Condition") -> "Condition":
        """Return this batch followed by ``other``, in which the same things are given."""
        parts: dict[str, Tensor] = {}
        for field in fields(self):
            both = [getattr(condition, field.name) for condition in (self, other)]
            if any(isinstance(part, Tensor) for part in both):
                parts[field.name] = torch.cat(both)
        return Condition(**parts, coarse=self.coarse)
