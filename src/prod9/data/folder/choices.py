"""What training needs to know and the user left out, chosen from the scans."""

import math
from collections.abc import Sequence

import numpy as np

from prod9.config.dataset import ChannelEntry, DatasetDescription
from prod9.data.folder.fingerprint import BODY_HU, STEP_HU, ChannelPrint, Fingerprint
from prod9.data.geometry import Placement
from prod9.errors import Prod9Error

_MULTIPLE = 8
"""Sides of the common grid are multiples: the autoencoder halves them up to three times."""
_ALIKE = 1.5
"""Grids this much larger than the median are still worth their padding."""


def completed(description: DatasetDescription, fingerprint: Fingerprint) -> DatasetDescription:
    """Fill in what is left out of channels, ``spacing_mm``, ``cut_out`` and ``shape``.

    Raises:
        Prod9Error: no scan can be used, or the chosen grid is too large.
    """
    if not fingerprint.scans:
        raise Prod9Error(
            next(iter(fingerprint.problems), f"{description.root} has no scans; add some.")
        )
    channels: dict[str, ChannelEntry] = {}
    for name, entry in description.channels.items():
        prints = [scan.channels[name] for scan in fingerprint.scans.values()]
        channels[name] = _channel(entry, prints)
    spacing = description.spacing_mm or _spacing(fingerprint)
    described = {"channels": channels, "spacing_mm": spacing}
    description = description.model_copy(update=described)
    if description.cut_out is None:
        first = description.intensity_channels[:1] or tuple(description.channels)[:1]
        parts = [scan.channels[first[0]].filled for scan in fingerprint.scans.values()]
        description = description.model_copy(update={"cut_out": 2 * sum(parts) > len(parts)})
    if description.shape is None:
        shapes = np.array([*resampled_shapes(description, fingerprint).values()])
        shape = _shape_of_parts(shapes) if description.cut_out else _shape(shapes)
        description = description.model_copy(update={"shape": shape})
    return description


def resampled_shapes(
    description: DatasetDescription, fingerprint: Fingerprint
) -> dict[str, tuple[int, int, int]]:
    """Return each scan's voxels along the RAS axes at the spacing of training.

    Raises:
        Prod9Error: a scan would have too many.
    """
    return {
        name: Placement.of(
            scan.placement.source_shape,
            scan.placement.source_affine,
            description.spacing_mm,
            f"case {name}",
        ).shape
        for name, scan in fingerprint.scans.items()
    }


def _channel(entry: ChannelEntry, prints: Sequence[ChannelPrint]) -> ChannelEntry:
    if entry.kind == "labels":
        values = entry.values or tuple(sorted({v for each in prints for v in each.values}))
        return entry.model_copy(update={"values": values})
    if entry.scaling == "stored" and entry.window is None:
        return entry.model_copy(update={"window": _stored_window(prints)})
    if entry.scaling is not None:
        return entry
    bodies = [each.body for each in prints if each.body is not None]
    if 2 * len(bodies) > len(prints):
        update = {"scaling": "window", "window": ct_window(np.sum(bodies, axis=0))}
    elif _is_scaled(prints):
        update = {"scaling": "stored", "window": _stored_window(prints)}
    else:
        update = {"scaling": "percentiles"}
    return entry.model_copy(update=update)


def ct_window(body: np.ndarray) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentile of body voxels in HU, rounded outwards to tens.

    ``body`` holds their counts, as in :class:`ChannelPrint`.
    """
    share = np.cumsum(body) / max(1, body.sum())
    low, high = np.searchsorted(share, (0.005, 0.995)).tolist()
    return float(BODY_HU + low * STEP_HU), float(BODY_HU + (high + 1) * STEP_HU)


def _stored_window(prints: Sequence[ChannelPrint]) -> tuple[float, float]:
    """Return the values that become 0 and 1 of grey values that are scaled already."""
    return 0.0, 1.0 if all(each.high <= 1 for each in prints) else 255.0


def _is_scaled(prints: Sequence[ChannelPrint]) -> bool:
    """Say whether grey values are on one scale in all scans: 0 to 1, 0 to 255, or two values."""
    return (
        all(each.low >= 0 and 0.5 <= each.high <= 1 for each in prints)
        or all(each.dtype == "uint8" and each.high == 255 for each in prints)
        or all(each.values == (0, 255) for each in prints)
    )


def _spacing(fingerprint: Fingerprint) -> tuple[float, float, float]:
    """Return the median along each RAS axis, mm; headers hold float32, hence the rounding."""
    spacings = [scan.placement.spacing_mm for scan in fingerprint.scans.values()]
    x, y, z = (float(f"{value:.6g}") for value in np.median(spacings, axis=0))
    return x, y, z


def _shape_of_parts(shapes: np.ndarray) -> tuple[int, int, int]:
    """Return sides that nine of ten scans (n, 3) fit in, to the nearest multiple.

    Scans that are cut out of the body have anatomy up to their faces: a grid for the largest would
    be mostly padding.
    """
    sides = np.percentile(shapes, 90, axis=0) / _MULTIPLE
    x, y, z = (max(1, math.floor(side + 0.5)) * _MULTIPLE for side in sides)
    return x, y, z


def _shape(shapes: np.ndarray) -> tuple[int, int, int]:
    """Return the sides that hold every scan (n, 3), or nearly all where a few are much larger."""
    x, y, z = (
        math.ceil((top if top <= _ALIKE * middle else most) / _MULTIPLE) * _MULTIPLE
        for top, middle, most in zip(
            shapes.max(axis=0),
            np.median(shapes, axis=0),
            np.percentile(shapes, 98, axis=0),
            strict=True,
        )
    )
    return x, y, z
