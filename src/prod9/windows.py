"""Overlapping windows over a grid: where they lie, how they are cut, how they are put together.

A window's weight is a product of one weight per axis, and the windows' starts are all combinations
of the starts per axis. So the weights that meet in a cell add up to a product of three sums, each
along one axis: dividing the weights by them beforehand replaces a volume of sums.
"""

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Start: TypeAlias = tuple[int, ...]
"""First cell of a window along each axis."""


@dataclass(frozen=True)
class Windows:
    """Windows of ``roi`` cells over a grid of ``sides`` cells; both in the same unit."""

    sides: tuple[int, ...]
    roi: tuple[int, ...]
    starts: tuple[Start, ...]
    """All combinations of the starts along each axis."""

    @classmethod
    def over(cls, sides: Sequence[int], roi: Sequence[int], overlap: float) -> "Windows":
        """Spread windows that share at least ``overlap`` of a side with the next."""
        roi = tuple(min(r, s) for r, s in zip(roi, sides, strict=True))
        per_axis: list[list[int]] = []
        for side, r in zip(sides, roi, strict=True):
            step = max(1, int(r * (1 - overlap)))
            last = side - r
            per_axis.append(sorted({*range(0, last, step), last}))
        return cls(tuple(sides), roi, tuple(itertools.product(*per_axis)))

    def cells(self, start: Start) -> tuple[slice, ...]:
        """Return the cells of the window that begins at ``start``."""
        return tuple(slice(s, s + r) for s, r in zip(start, self.roi, strict=True))


def _profile(side: int, mode: str) -> Tensor:
    """Weight of each cell along one side: 1, or a Gaussian with sigma = an eighth of the side."""
    if mode == "constant":
        return torch.ones(side, dtype=torch.float64)
    centred = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return torch.exp(-0.5 * (centred / (side / 8)) ** 2).clamp_min(1e-3)


def axis_shares(windows: Windows, scale: int, mode: str) -> list[dict[int, Tensor]]:
    """How much each window counts in what it covers, axis by axis.

    Args:
        windows: over the coarse grid.
        scale: fine cells per coarse cell and axis.
        mode: ``gaussian`` or ``constant``, the weights before they are made to sum to 1.

    Returns:
        For each axis, start -> float32 (scale * roi,), in (0, 1]; in every fine cell the shares of
        the windows that cover it sum to 1 (exactly 1 where it is one window).
    """
    shares: list[dict[int, Tensor]] = []
    for axis, (side, roi) in enumerate(zip(windows.sides, windows.roi, strict=True)):
        profile, norm = _profile(scale * roi, mode), torch.zeros(scale * side, dtype=torch.float64)
        starts = sorted({start[axis] for start in windows.starts})
        covered = {s: norm[scale * s : scale * (s + roi)] for s in starts}
        for part in covered.values():
            part += profile
        shares.append({s: (profile / part).float() for s, part in covered.items()})
    return shares


def replicated_crop(volume: Tensor, starts: Sequence[int], sides: Sequence[int]) -> Tensor:
    """Cut ``sides`` voxels out of (B, C, D, H, W), from ``starts``, which may lie outside.

    What lies outside repeats the border: the same as padding the whole volume first. A view where
    nothing does. The crop must hold at least one voxel of the volume.
    """
    stops = [s + side for s, side in zip(starts, sides, strict=True)]
    pads = [
        (max(0, -a), max(0, b - n)) for a, b, n in zip(starts, stops, volume.shape[2:], strict=True)
    ]
    (d, h, w) = (slice(max(0, a), b) for a, b in zip(starts, stops, strict=True))
    crop = volume[:, :, d, h, w]
    if not any(before or after for before, after in pads):
        return crop
    return F.pad(crop, [p for pair in reversed(pads) for p in pair], mode="replicate")


def uniform(window: Tensor) -> Hashable:
    """Return what (B, C, D, H, W) or (B, D, H, W) holds everywhere (one number a channel), or None.

    NaN equals nothing, itself included.
    """
    corner = window[..., :1, :1, :1]
    return tuple(corner.flatten().tolist()) if bool((window == corner).all()) else None


def blend(
    windows: Windows,
    run: Callable[[Sequence[Start]], Tensor],
    alike: Callable[[Start], Hashable],
    *,
    channels: int,
    sides: Sequence[int],
    scale: int,
    mode: str,
    batch_size: int,
) -> Tensor:
    """Weighted mean of the windows' outputs; beyond it, memory for one batch of windows.

    Args:
        windows: over the coarse grid.
        run: starts of some windows -> their outputs (n, channels, *(scale * roi)).
        alike: a window's start -> a key that it shares with windows of the same content, or None.
            Windows that share a key go through ``run`` once, by itself.
        channels: of the outputs.
        sides: of the result, at most ``scale`` times the grid's; it is cut from the middle (the
            odd cell more is cut off at the end).
        scale: fine cells per coarse cell and axis.
        mode: ``gaussian`` or ``constant``.
        batch_size: windows per call of ``run``.

    Returns:
        float32 (channels, *sides), contiguous, on the CPU.
    """
    shares = axis_shares(windows, scale, mode)
    cut = [(scale * n - side) // 2 for n, side in zip(windows.sides, sides, strict=True)]
    total = torch.zeros(channels, *sides, dtype=torch.float32)

    def add(start: Start, output: Tensor) -> None:
        weight = torch.ones(())
        place, inside = [slice(None)], [slice(None)]
        for share, s, before, side in zip(shares, start, cut, sides, strict=True):
            first = scale * s - before
            low, high = max(first, 0), min(first + len(share[s]), side)
            place.append(slice(low, high))
            inside.append(slice(low - first, high - first))
            weight = weight[..., None] * share[s][inside[-1]]
        total[tuple(place)] += weight * output[tuple(inside)]

    groups: dict[Hashable, list[Start]] = {}
    for start in windows.starts:
        groups.setdefault(alike(start), []).append(start)
    rest = groups.pop(None, [])
    # Group by group, so that never more than one output is kept for later.
    for same in groups.values():
        (output,) = run(same[:1]).float().cpu()
        for start in same:
            add(start, output)
    for first in range(0, len(rest), batch_size):
        batch = rest[first : first + batch_size]
        for start, output in zip(batch, run(batch).float().cpu(), strict=True):
            add(start, output)
    return total
