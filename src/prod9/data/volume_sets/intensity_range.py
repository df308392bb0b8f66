"""How the stored intensities of a set become [0, 1]: each volume is checked."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prod9.data.intensity import IntensityScale
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error

_ROUNDING = 1e-6
"""Rounding errors of floats may leave [0, 1] by this much."""
_OUTSIDE = 1e-3
"""A volume may leave a fixed range by this share of the range."""
_OTHER_RULES = (
    "set the intensity to LOW,HIGH (one range for all volumes, such as --intensity 0,4095) or to "
    "percentiles (each volume by itself)"
)


@dataclass(frozen=True)
class Intensity:
    """The rule by which all volumes of a set become [0, 1]."""

    description: str
    apply: Callable[[StoredVolume], np.ndarray]
    """A stored volume -> a new array, float32 in [0, 1]; a Prod9Error that names the file if the
    rule does not fit its values."""


def choose_intensity(text: str, first: StoredVolume) -> Intensity:
    """Return the rule for the volumes of a set.

    ``auto`` accepts two kinds: all uint8 (divided by 255), and all floats in [0, 1] (as stored).
    ``LOW,HIGH`` is a fixed range for all volumes. ``percentiles`` scales each volume by itself:
    the percentiles 0.1 and 99.9 of its foreground (voxels other than 0) become 0 and 1, the
    background stays 0.

    Args:
        text: ``auto``, ``percentiles`` or ``LOW,HIGH``.
        first: of the set; under ``auto`` all other volumes must be of its kind.

    Raises:
        Prod9Error: ``text`` is none of these.
    """
    if text == "auto":
        return _automatic(first)
    if text == "percentiles":
        return Intensity(
            "percentiles 0.1 and 99.9 of each volume's foreground (hides differences of "
            "brightness)",
            lambda raw: IntensityScale.of(raw, (0.1, 99.9)).apply(raw.array),
        )
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise Prod9Error(
            f"the intensity {text!r} is not auto, percentiles, or two rising numbers such as "
            "0,4095; choose one of these."
        )
    return _fixed(low, high)


def _automatic(first: StoredVolume) -> Intensity:
    kind = _kind(first.dtype)

    def apply(raw: StoredVolume) -> np.ndarray:
        low, high = float(raw.array.min()), float(raw.array.max())
        shown = f"{raw.path} holds {raw.dtype} with values {low:.8g} to {high:.8g}"
        if _kind(raw.dtype) != kind:
            raise Prod9Error(
                f"{first.path} holds {first.dtype} and {raw.path} holds {raw.dtype}: their "
                f"intensities cannot mean the same; store all volumes alike, or {_OTHER_RULES}."
            )
        if kind == "uint8":
            if 0 < high <= 1:  # all 0: a blank volume, which a generator may make
                raise Prod9Error(
                    f"{shown}: a mask, or [0, 1] cast to bytes, not a volume of 0 to 255; set the "
                    "intensity to 0,1 for masks."
                )
            return np.divide(raw.array, 255, dtype=np.float32)
        if kind != "float" or low < -_ROUNDING or high > 1 + _ROUNDING:
            raise Prod9Error(
                f"{shown}; auto reads only uint8 and floats in [0, 1]: {_OTHER_RULES}."
            )
        return raw.array.clip(0, 1)

    return Intensity("uint8 / 255" if kind == "uint8" else "stored in [0, 1]", apply)


def _kind(dtype: np.dtype) -> str:
    return "float" if dtype.kind == "f" else dtype.name


def _fixed(low: float, high: float) -> Intensity:
    slack = _OUTSIDE * (high - low)

    def apply(raw: StoredVolume) -> np.ndarray:
        least, most = float(raw.array.min()), float(raw.array.max())
        if least < low - slack or most > high + slack:
            raise Prod9Error(
                f"{raw.path} has values {least:.8g} to {most:.8g}, outside the intensity range "
                f"{low:.8g},{high:.8g} by more than {_OUTSIDE:.1%} of it; choose a range that "
                "holds all volumes."
            )
        return IntensityScale(low, high).apply(raw.array)

    return Intensity(f"{low:.8g} to {high:.8g}, the same range for all volumes", apply)
