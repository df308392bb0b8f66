"""Pictures in the page: three-plane tiles of volumes, figures of matplotlib, as PNG in base64."""

import base64
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import matplotlib.figure
import numpy as np
import torch
import torch.nn.functional as F

from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet
from prod9.montage import planes
from prod9.report.document import escape
from prod9.results.schema import ClosePair

MAX_CLASSES = 12
PER_CLASS = 3
ALONE = 9  # where there is only one class
PAIRS = 6
MAX_SIDE = 128
"""Pixels: larger slices are averaged down to it."""
DIFFERENCE_TOP = 0.5
"""Absolute difference that is shown brightest."""
_PIXELATED = 96  # below it, a voxel is shown as the square that it is


def png(pixels: np.ndarray) -> bytes:
    """Return a picture, uint8 (H, W) grey or (H, W, 3) RGB, as PNG; the same bytes each time."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    filtered = np.pad(rows, [(1, 0), (0, 0)])
    filtered = (filtered[1:] - filtered[:-1]).astype(np.uint8)  # PNG's filter "up"
    data = np.concatenate([np.full((height, 1), 2, np.uint8), filtered], axis=1).tobytes()

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def image(data: bytes, alt: str, kind: str = "") -> str:
    """Return a PNG as HTML that needs no other file; ``alt`` is plain text."""
    names = f' class="{escape(kind)}"' if kind else ""
    source = base64.b64encode(data).decode()
    return f'<img{names} alt="{escape(alt)}" src="data:image/png;base64,{source}">'


def chart(figure: matplotlib.figure.Figure, alt: str, *, narrow: bool = False) -> str:
    """Return a figure of matplotlib on the page's own background."""
    buffer = io.BytesIO()
    metadata = {"Software": None}  # not which version drew it
    figure.savefig(buffer, format="png", dpi=170, transparent=True, metadata=metadata)
    return image(buffer.getvalue(), alt, "chart narrow" if narrow else "chart")


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


def _kind(shape: Sequence[int]) -> str:
    return "pixels" if max(shape) <= _PIXELATED else ""


def volume_image(collection: VolumeSet, index: int, what: str) -> str:
    """Return the three planes of one volume; ``what`` is the set's name in the page."""
    name, group = collection.names[index], collection.class_names[int(collection.labels[index])]
    of_class = f" ({group})" if collection.has_classes else ""
    alt = f"{what}: {name}{of_class}; axial, coronal and sagittal middle slices"
    pixels = tile(collection[index], collection.spacing_mm)
    return image(png(pixels), alt, _kind(collection.shape))


@dataclass(frozen=True)
class Choice:
    """The volumes of a set that are shown, by a rule that looks at none of them."""

    rows: dict[str, list[int]]
    """Class name -> indices."""
    classes: int
    """How many classes the set has."""


def choose(collection: VolumeSet) -> Choice:
    """Choose the first volumes of each class: three of up to twelve evenly spaced classes.

    Without classes: the first nine volumes.
    """
    known = collection.has_classes
    present = [int(label) for label in np.unique(collection.labels)]
    count = min(MAX_CLASSES, len(present))
    spread = [present[i * len(present) // count] for i in range(count)]
    rows = {
        collection.class_names[label]: collection.of_class(label)[
            : PER_CLASS if known else ALONE
        ].tolist()
        for label in spread
    }
    return Choice(rows, len(present))


def rule(choice: Choice) -> str:
    """Say which volumes were chosen, as plain text."""
    if list(choice.rows) == list(ONE_CLASS) or choice.classes == 1:
        return f"The first {max(map(len, choice.rows.values()))} volumes of each set, in order."
    of = "each class"
    if choice.classes > len(choice.rows):
        of = f"{len(choice.rows)} of {choice.classes} classes, evenly spaced"
    return f"The first {PER_CLASS} volumes of {of}, in each set's own order: none was picked."


def montage_rows(
    sets: Mapping[str, VolumeSet], rows: Mapping[str, Mapping[str, Sequence[int]]]
) -> str:
    """Return sets beside one another, class by class.

    Args:
        sets: heading -> volumes.
        rows: class -> heading -> indices.
    """
    head = "".join(f"<div>{escape(name)}</div>" for name in sets)
    lines = [f'<div class="row head"><div></div>{head}</div>']
    for group, chosen in rows.items():
        label = "" if group in ONE_CLASS else escape(group)
        cells: list[str] = []
        for name, collection in sets.items():
            tiles = "".join(volume_image(collection, i, name) for i in chosen.get(name, ()))
            tiles = tiles or '<span class="absent none">none</span>'
            cells.append(
                f'<div><div class="set">{escape(name)}</div><div class="tiles">{tiles}</div></div>'
            )
        lines.append(f'<div class="row"><div class="label">{label}</div>{"".join(cells)}</div>')
    return f'<div class="montage" style="--sets: {len(sets)}">{"".join(lines)}</div>'


def gallery(pairs: Sequence[ClosePair], generated: VolumeSet, train: VolumeSet) -> str:
    """Return the closest pairs: generated, nearest training volume, absolute difference."""
    made = {name: index for index, name in enumerate(generated.names)}
    seen = {name: index for index, name in enumerate(train.names)}
    known = [pair for pair in pairs if pair.generated in made and pair.train in seen][:PAIRS]
    if not known:
        return ""
    head = "<div></div><div>Generated</div><div>Nearest training volume</div><div>Difference</div>"
    lines = [f'<div class="row head">{head}</div>']
    for rank, pair in enumerate(known, 1):
        mine, theirs = made[pair.generated], seen[pair.train]
        cells = [
            ("Generated", volume_image(generated, mine, "Generated")),
            ("Nearest training volume", volume_image(train, theirs, "Training")),
            ("Difference", _difference(generated, mine, train, theirs)),
        ]
        tiles = "".join(
            f'<div><div class="set">{name}</div><div class="tiles">{picture}</div></div>'
            for name, picture in cells
        )
        label = (
            f"{rank}. {escape(pair.generated)}<small>nearest: {escape(pair.train)}<br>"
            f"distance {pair.distance:.4g}</small>"
        )
        lines.append(f'<div class="row"><div class="label">{label}</div>{tiles}</div>')
    return f'<div class="montage gallery" style="--sets: 3">{"".join(lines)}</div>'


def _difference(generated: VolumeSet, mine: int, train: VolumeSet, theirs: int) -> str:
    """Return the absolute difference of two volumes of one grid, black where they agree."""
    difference = np.abs(generated[mine] - train[theirs]) / DIFFERENCE_TOP
    grey = tile(difference, generated.spacing_mm)
    colours = matplotlib.colormaps["inferno"](grey)[..., :3]
    alt = f"Absolute difference of {generated.names[mine]} and {train.names[theirs]}"
    return image(png((colours * 255).round().astype(np.uint8)), alt, _kind(generated.shape))
