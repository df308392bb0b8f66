"""From a scan's intensities to [0, 1], and back."""

from dataclasses import dataclass

import numpy as np

from prod9.data.volume_files.stored_volume import StoredVolume, slabs


@dataclass(frozen=True)
class IntensityScale:
    """The straight line from ``low``..``high`` to 0..1, and back; the background stays apart."""

    low: float
    high: float
    background: float | None = None
    """The stored value outside the foreground, 0.0; None if the scan has no such voxels, or if the
    range is not of the foreground."""

    @classmethod
    def of(
        cls, raw: StoredVolume, percentiles: tuple[float, float] | None = None
    ) -> "IntensityScale":
        """Return the range of a volume.

        Args:
            raw: the volume.
            percentiles: lower and upper (0..100) of the foreground: the voxels that are not exactly
                0. Without a foreground the range is 0..0. By default uint8 has the range 0..255,
                as MedMNIST has, and everything else its minimum and maximum.
        """
        if percentiles is not None:
            foreground = raw.array[raw.array != 0]  # a copy, free to be put into another order
            background = 0.0 if foreground.size < raw.array.size else None
            if foreground.size == 0:
                return cls(0.0, 0.0, background)
            low, high = np.percentile(foreground, percentiles, overwrite_input=True)
            return cls(float(low), float(high), background)
        if raw.dtype == np.uint8:
            return cls(0.0, 255.0)
        return cls(float(raw.array.min()), float(raw.array.max()))

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Return intensities in [0, 1], float32; what lies outside the range is clipped.

        A constant range (``low == high``) becomes 0, and so does the background.
        """
        span = self.high - self.low
        result = np.zeros(array.shape, np.float32)
        if span <= 0:
            return result
        for slab in slabs(array.shape):
            # float64: the span of two float32 numbers may overflow float32.
            scaled = (array[slab].astype(np.float64) - self.low) / span
            result[slab] = scaled.clip(0, 1)
            if self.background is not None:
                result[slab][array[slab] == self.background] = 0
        return result

    def invert(self, array: np.ndarray, foreground: np.ndarray | None = None) -> np.ndarray:
        """Return the original intensities, float32; a constant volume gets its constant back.

        Args:
            array: in [0, 1].
            foreground: bool, of the array's shape: False gets the background's value; when left
                out, voxels of exactly 0 do. Ignored by a scale without a background.
        """
        result = np.empty(array.shape, np.float32)
        for slab in slabs(array.shape):
            part = array[slab]
            result[slab] = self.low + part.astype(np.float64) * (self.high - self.low)
            if self.background is not None:
                outside = part == 0 if foreground is None else foreground[slab] == 0
                result[slab][outside] = self.background
        return result
