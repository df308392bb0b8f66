"""Pictures of volumes: three-plane montages, as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from prod9.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def planes(volume: Tensor, at: Sequence[int] | None = None) -> list[np.ndarray]:
    """Return the axial, coronal and sagittal slices of (D, H, W) through a voxel (the middle).

    Axes are RAS+: slices are shown as a radiologist's viewer shows them, front or top up.
    """
    array = volume.float().cpu().numpy()
    x, y, z = at or [side // 2 for side in array.shape]
    return [array[:, :, z].T[::-1], array[:, y, :].T[::-1], array[x, :, :].T[::-1]]


def three_planes(volume: Tensor) -> np.ndarray:
    """Return the three middle slices of (D, H, W) side by side, padded to the same square."""
    side = max(volume.shape)
    squares = [
        np.pad(plane, [((side - n) // 2, side - n - (side - n) // 2) for n in plane.shape])
        for plane in planes(volume)
    ]
    return np.concatenate(squares, axis=1)


@dataclass(frozen=True)
class Panel:
    """One column of :func:`compare`."""

    title: str
    volume: Tensor
    """(D, H, W), RAS+."""
    top: float = 1.0
    """What is shown brightest."""
    colours: str = "gray"


_MARGIN = 4


def compare(panels: Sequence[Panel], at: Sequence[int] | None = None) -> "Figure":
    """Show volumes of one grid beside one another, each cut through the same voxel (the middle).

    They are cut to the box in which the first panel has anything.
    """
    from matplotlib.figure import Figure  # half a second, and training draws seldom

    first = panels[0].volume
    at = list(at or [side // 2 for side in first.shape])
    low, high = [0, 0, 0], list(first.shape)
    if bool((first > 0).any()):
        places = (first > 0).nonzero()
        low = [max(0, min(int(n) - _MARGIN, a)) for n, a in zip(places.amin(0), at, strict=True)]
        high = [max(int(n) + 1 + _MARGIN, a + 1) for n, a in zip(places.amax(0), at, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = [a - b for a, b in zip(at, low, strict=True)]
    slices = [planes(panel.volume[box], inside) for panel in panels]
    width = 1.7
    heights = [width * plane.shape[0] / plane.shape[1] for plane in slices[0]]
    figure = Figure(
        figsize=(width * len(panels) + 0.1, sum(heights) + 0.35), dpi=110, facecolor="black"
    )
    axes = figure.subplots(3, len(panels), squeeze=False, height_ratios=heights)
    for column, panel in enumerate(panels):
        for row, plane in enumerate(slices[column]):
            axis = axes[row][column]
            axis.imshow(plane, cmap=panel.colours, vmin=0, vmax=panel.top, interpolation="nearest")
            axis.set_axis_off()
        axes[0][column].set_title(panel.title, fontsize=8, color="white", parse_math=False)
    figure.tight_layout(pad=0.2)
    return figure


def montage(
    rows: Sequence[tuple[str, Tensor]],
    columns: Sequence[str] = (),
    title: str = "",
) -> "Figure":
    """Lay out volumes in labelled rows.

    Args:
        rows: (label, volumes of shape (N, 1, D, H, W) in [0, 1]).
        columns: a title per column, or none.
        title: above everything.
    """
    from matplotlib.figure import Figure

    count = max(len(volumes) for _, volumes in rows)
    height = 0.9 * len(rows) + (0.3 if columns else 0.1) + (0.35 if title else 0)
    figure = Figure(figsize=(1.2 + 2.4 * count, height), dpi=100)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for r, (label, volumes) in enumerate(rows):
        for c in range(count):
            axis = axes[r][c]
            axis.set(xticks=[], yticks=[], frame_on=False)
            if c < len(volumes):
                shown = three_planes(volumes[c, 0])
                axis.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if c == 0:
                # A class may be called "5$", which is no formula.
                style = {"ha": "right", "va": "center", "fontsize": 8, "parse_math": False}
                axis.set_ylabel(label, rotation=0, **style)
            if r == 0 and c < len(columns):
                axis.set_title(columns[c], fontsize=8, parse_math=False)
    if title:
        figure.suptitle(title, fontsize=9, y=1 - 0.08 / height, va="top", parse_math=False)
    figure.tight_layout(pad=0.3, rect=(0, 0, 1, 1 - (0.3 / height if title else 0)))
    return figure


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def by_class(
    volumes: Tensor, labels: Tensor, class_names: Sequence[str], count: int
) -> list[tuple[str, Tensor]]:
    """Return up to ``count`` volumes of each class that occurs, as rows of a montage."""
    present: list[int] = torch.unique(labels).tolist()
    return [(class_names[label], volumes[labels == label][:count]) for label in present]
