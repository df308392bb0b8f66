"""Pictures in the page: three-plane tiles of volumes, figures of matplotlib, as PNG in base64."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet
from prod9.montage import planes
from prod9.results.schema import ClosePair

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CLASSES = 12
PER_CLASS = 3
ALONE = 9  # where there is only one class
PAIRS = 6
MAX_SIDE = 128
"""Pixels: larger slices are averaged down to it."""
DIFFERENCE_TOP = 0.5
"""Absolute difference that is shown brightest."""
_PIXELATED = 96  # below it, a voxel is shown as the square that it is


@dataclass(frozen=True)
class Picture:
    """An ``<img>`` that needs no other file."""

    src: str
    """PNG, as a ``data:`` address."""
    alt: str
    """Plain text."""
    kind: str = ""
    """Its class in the page's style sheet."""


@dataclass(frozen=True)
class MontageRow:
    """One class, or one pair, of several sets beside one another."""

    label: str
    cells: Sequence[Sequence[Picture]]
    """Of each set."""
    notes: Sequence[str] = ()
    """Small, below the label."""


def picture(png: bytes, alt: str, kind: str = "") -> Picture:
    """Return a PNG as a picture of the page; ``alt`` is plain text."""
    return Picture(f"data:image/png;base64,{base64.b64encode(png).decode()}", alt, kind)


def chart(figure: "Figure", alt: str, kind: str = "chart") -> Picture:
    """Return a figure of matplotlib on the page's own background."""
    buffer = io.BytesIO()
    metadata = {"Software": None}  # not which version drew it
    figure.savefig(buffer, format="png", dpi=170, transparent=True, metadata=metadata)
    return picture(buffer.getvalue(), alt, kind)


def tile(volume: np.ndarray, spacing: Sequence[float] | None = None) -> np.ndarray:
    """Return the three middle slices of (D, H, W) in [0, 1] side by side, uint8.

    Each is in its physical proportions, padded to a square of S pixels, at most :data:`MAX_SIDE`;
    a black line of S // 28 pixels, at least 1, stands between them.
    """
    mm = np.asarray(spacing or (1.0, 1.0, 1.0))
    extent = np.asarray(volume.shape) * mm
    scale = min(1 / mm.min(), MAX_SIDE / extent.max())
    x, y, z = (max(1, round(float(side))) for side in extent * scale)
    side = max(x, y, z)
    squares: list[np.ndarray] = []
    gap = np.zeros((side, max(1, side // 28)), np.float32)
    sizes = ((y, x), (z, x), (z, y))  # rows and columns: axial, coronal, sagittal
    for plane, size in zip(planes(torch.from_numpy(volume)), sizes, strict=True):
        slice_ = torch.from_numpy(plane.copy())[None, None]  # (flipped: negative strides)
        drawn = F.adaptive_avg_pool2d(slice_, size)[0, 0].numpy()
        before = [(side - n) // 2 for n in size]
        after = [side - n - b for n, b in zip(size, before, strict=True)]
        squares += [np.pad(drawn, list(zip(before, after, strict=True))), gap]
    return (np.concatenate(squares[:-1], axis=1).clip(0, 1) * 255).round().astype(np.uint8)


def _tile_picture(pixels: np.ndarray, alt: str, shape: Sequence[int]) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return picture(buffer.getvalue(), alt, "pixels" if max(shape) <= _PIXELATED else "")


def volume_picture(volumes: VolumeSet, index: int, what: str) -> Picture:
    """Return the three planes of one volume; ``what`` is the set's name in the page."""
    of_class = f" ({volumes.class_names[int(volumes.labels[index])]})"
    name = volumes.names[index] + (of_class if volumes.has_classes else "")
    alt = f"{what}: {name}; axial, coronal and sagittal middle slices"
    return _tile_picture(tile(volumes[index], volumes.spacing_mm), alt, volumes.shape)


@dataclass(frozen=True)
class Choice:
    """The volumes of a set that are shown, by a rule that looks at none of them."""

    rows: dict[str, list[int]]
    """Class name -> indices."""
    classes: int
    """How many classes the set has."""


def choose(volumes: VolumeSet) -> Choice:
    """Choose the first volumes of each class: three of up to twelve evenly spaced classes.

    Without classes: the first nine volumes.
    """
    present = [int(label) for label in np.unique(volumes.labels)]
    count = min(MAX_CLASSES, len(present))
    spread = [present[i * len(present) // count] for i in range(count)]
    each = PER_CLASS if volumes.has_classes else ALONE
    rows = {volumes.class_names[label]: volumes.of_class(label)[:each].tolist() for label in spread}
    return Choice(rows, len(present))


def rule(choice: Choice) -> str:
    """Say which volumes were chosen, as plain text."""
    if choice.classes == 1:
        return f"The first volumes of each set, in order; up to {ALONE}."
    of = "each class"
    if choice.classes > len(choice.rows):
        of = f"{len(choice.rows)} of {choice.classes} classes, evenly spaced"
    return f"The first {PER_CLASS} volumes of {of}, in each set's own order: none was picked."


def class_rows(sets: dict[str, VolumeSet], chosen: dict[str, Choice]) -> list[MontageRow]:
    """Return the chosen volumes of some sets, class by class; keys are the sets' headings."""
    groups = dict.fromkeys(group for choice in chosen.values() for group in choice.rows)
    return [
        MontageRow(
            "" if group in ONE_CLASS else group,
            [
                [volume_picture(volumes, i, name) for i in chosen[name].rows.get(group, ())]
                for name, volumes in sets.items()
            ],
        )
        for group in groups
    ]


def pair_rows(
    pairs: Sequence[ClosePair], generated: VolumeSet, train: VolumeSet
) -> list[MontageRow]:
    """Return the closest pairs: generated, nearest training volume, absolute difference."""
    from matplotlib import colormaps

    known = [p for p in pairs if p.generated in generated.names and p.train in train.names]
    rows: list[MontageRow] = []
    for rank, pair in enumerate(known[:PAIRS], 1):
        mine, theirs = generated.names.index(pair.generated), train.names.index(pair.train)
        difference = np.abs(generated[mine] - train[theirs]) / DIFFERENCE_TOP  # black: the same
        colours = colormaps["inferno"](tile(difference, generated.spacing_mm))[..., :3]
        alt = f"Absolute difference of {pair.generated} and {pair.train}"
        pixels = (colours * 255).round().astype(np.uint8)
        cells = [
            [volume_picture(generated, mine, "Generated")],
            [volume_picture(train, theirs, "Training")],
            [_tile_picture(pixels, alt, generated.shape)],
        ]
        notes = (f"nearest: {pair.train}", f"distance {pair.distance:.4g}")
        rows.append(MontageRow(f"{rank}. {pair.generated}", cells, notes))
    return rows
