"""How a set's stored intensities become [0, 1]: checked volume by volume, never assumed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prod9.data.intensity import IntensityScale
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.errors import Prod9Error

PERCENTILES = (0.1, 99.9)
"""Of a volume's foreground (voxels other than 0): they become 0 and 1."""
# Float arithmetic may end this far outside [0, 1].
_ROUNDING = 1e-6
# Share of a fixed range by which a volume may leave it.
_OUTSIDE = 1e-3

_WAYS_OUT = (
    "pass --intensity LOW,HIGH (one range for all volumes, such as 0,4095) or --intensity "
    "percentiles (each volume by itself)"
)


@dataclass(frozen=True)
class Intensity:
    """The way to [0, 1] of all volumes of a set."""

    description: str
    """For :attr:`VolumeSet.intensity`."""
    apply: Callable[[StoredVolume], np.ndarray]
    """A volume as stored -> a new array, float32 in [0, 1] on the same grid; an error that names
    the file where its values do not allow it."""


def parse_intensity(text: str) -> str | tuple[float, float]:
    """Return ``auto``, ``percentiles``, or the two ends of a fixed range.

    Raises:
        Prod9Error: ``text`` is neither of these words nor two rising numbers.
    """
    if text in ("auto", "percentiles"):
        return text
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise Prod9Error(
            f"--intensity {text}: give auto, percentiles, or two rising numbers such as 0,4095."
        )
    return low, high


def choose_intensity(text: str, files: Sequence[tuple[Path, np.dtype]]) -> Intensity:
    """Decide how the volumes of a set become [0, 1].

    ``auto`` knows two kinds: all uint8 (divided by 255), and all floats in [0, 1] (as stored).
    ``LOW,HIGH`` is a fixed range for all volumes. ``percentiles`` scales each volume by itself:
    the percentiles 0.1 and 99.9 of its foreground (voxels other than 0) become 0 and 1, the
    background stays 0; how bright the volumes are beside each other is lost.

    Args:
        text: ``auto``, ``percentiles`` or ``LOW,HIGH``.
        files: Path and dtype of each volume (float where a NIfTI has a slope).

    Raises:
        Prod9Error: as :func:`parse_intensity`; or ``auto``, and the files are of mixed kinds or of
            a kind it does not know; the sentence names the file, its smallest and largest value.
    """
    wanted = parse_intensity(text)
    if isinstance(wanted, tuple):
        return _fixed(*wanted)
    if wanted == "percentiles":
        ends = " and ".join(f"{p:g}" for p in PERCENTILES)
        return Intensity(
            f"percentiles {ends} of each volume's foreground (hides differences of brightness)",
            lambda raw: by_percentiles(raw.array, raw.path),
        )
    first, dtype = files[0]
    for path, other in files[1:]:
        if _kind(other) != _kind(dtype):
            raise Prod9Error(
                f"{first} holds {dtype} and {path} holds {other}: their intensities cannot mean "
                f"the same; store all volumes alike, or {_WAYS_OUT}."
            )
    if _kind(dtype) == "uint8":
        return Intensity("uint8 / 255", _bytes)
    if _kind(dtype) == "float":
        return Intensity("stored in [0, 1]", _stored)
    raise _unknown(read_volume(first))


def by_percentiles(array: np.ndarray, path: Path) -> np.ndarray:
    """Scale one volume by itself (see :func:`choose_intensity`).

    Args:
        array: float32 (D, H, W), any intensities.
        path: Whose it is.
    """
    raw = StoredVolume(array, np.eye(4), array.dtype, path)
    return IntensityScale.of(raw, PERCENTILES).apply(array)


def with_percentiles(collection: VolumeSet) -> VolumeSet:
    """Return the volumes, each scaled by itself."""
    read = collection.read

    def scaled(index: int) -> np.ndarray:
        return by_percentiles(read(index), Path(collection.names[index]))

    kind = choose_intensity("percentiles", ())
    return replace(collection, intensity=kind.description, read=scaled)


def _kind(dtype: np.dtype) -> str:
    return "float" if dtype.kind == "f" else dtype.name


def _bytes(raw: StoredVolume) -> np.ndarray:
    low, high = _extent(raw.array)
    if 0 < high <= 1:  # all 0: a blank volume, of which there may be one
        raise Prod9Error(
            f"{raw.path} is uint8 with values {_number(low)} to {_number(high)}: a mask, or [0, 1] "
            "cast to bytes, not a volume of 0 to 255; store it anew, or pass --intensity 0,1 for "
            "masks (--intensity 0,255 if it is meant to be that dark)."
        )
    return np.divide(raw.array, 255, dtype=np.float32)


def _stored(raw: StoredVolume) -> np.ndarray:
    low, high = _extent(raw.array)
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise _unknown(raw)
    return raw.array.clip(0, 1)


def _fixed(low: float, high: float) -> Intensity:
    slack = _OUTSIDE * (high - low)

    def apply(raw: StoredVolume) -> np.ndarray:
        least, most = _extent(raw.array)
        if least < low - slack or most > high + slack:
            raise Prod9Error(
                f"{raw.path} has values {_number(least)} to {_number(most)}, outside --intensity "
                f"{_number(low)},{_number(high)} by more than {_OUTSIDE:.1%} of the range; choose "
                "a range that holds all volumes."
            )
        return IntensityScale(low, high).apply(raw.array)

    return Intensity(f"{_number(low)} to {_number(high)}, the same range for all volumes", apply)


def _unknown(raw: StoredVolume) -> Prod9Error:
    low, high = _extent(raw.array)
    return Prod9Error(
        f"{raw.path} holds {raw.dtype} with values {_number(low)} to {_number(high)}; prod9 knows "
        f"only uint8 and floats in [0, 1] by itself: {_WAYS_OUT}."
    )


def _extent(array: np.ndarray) -> tuple[float, float]:
    return float(array.min()), float(array.max())


def _number(value: float) -> str:
    # float32 has no more digits than these: 0.1, not 0.100000001.
    return f"{value:.8g}"
