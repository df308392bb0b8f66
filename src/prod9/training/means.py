"""Means over an epoch and over all processes: sums over counts, never means of means."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prod9.runtime.distributed import total


class Means:
    """Weighted means of named values, in float64; :meth:`add` never waits for the device.

    Lightning's own ``sync_dist`` rounds the number of samples per process down (in 2.6, with gloo),
    and weights what it adds up with that.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._names: tuple[str, ...] = ()

    def reset(self) -> None:
        """Forget everything."""
        self._sums = None

    def add(self, values: Mapping[str, Tensor], weight: int) -> None:
        """Add the means (scalars) of ``weight`` samples; the names are the same each time."""
        self._names = tuple(values)
        parts = [value.detach().double() * weight for value in values.values()]
        row = torch.stack([*parts, torch.full_like(parts[0], weight)])
        self._sums = row if self._sums is None else self._sums + row

    def compute(self) -> dict[str, Tensor]:
        """Return the means over all samples of all processes, each of which must come here.

        Raises:
            ValueError: nothing was added.
        """
        if self._sums is None:
            raise ValueError("no values were added")
        *sums, weight = total(self._sums).unbind()
        return {name: part / weight for name, part in zip(self._names, sums, strict=True)}
