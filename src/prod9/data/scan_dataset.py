"""Preprocessed scans as a data set."""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from prod9.config.data import PreprocessingConfig
from prod9.data.dataset import Channel, Covariate, Dataset, Sides
from prod9.data.scan_cache import Scan


class ScanDataset(Dataset):
    """Scans of the cache (:mod:`prod9.data.scan_cache`), each in the middle of one common grid.

    A scan that is larger than the grid is cropped around its middle.

    Args:
        name: as of :class:`Dataset`, and so are all others that are not named here.
        scans: their stored channels are ``channels``, in order.
        classes: index of each scan's class; all 0 when left out.
        values: for each scan, the value (or None) of each covariate.
    """

    intensity = "percentiles of each volume's foreground, as the scans were preprocessed"

    def __init__(
        self,
        name: str,
        scans: Sequence[Scan],
        shape: Sides,
        preprocessing: PreprocessingConfig,
        channels: tuple[Channel, ...],
        *,
        classes: Sequence[int] = (),
        class_names: tuple[str, ...] = ("all",),
        covariates: tuple[Covariate, ...] = (),
        values: Sequence[tuple[float | None, ...]] = (),
    ) -> None:
        self.name, self.scans, self.shape = name, tuple(scans), shape
        self.preprocessing, self.spacing_mm = preprocessing, preprocessing.spacing_mm
        self.channels, self.class_names, self.classes = channels, class_names, tuple(classes)
        self.covariates, self.values = covariates, tuple(values)
        self.names = tuple(scan.name for scan in scans)
        self.subjects = tuple(scan.subject for scan in scans)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the scans, the grid, and what is known of each scan."""
        parts = [str(self.shape), *(f"{scan.name} {scan.digest}" for scan in self.scans)]
        if self.classes or self.covariates:
            parts.append(repr((self.class_names, self.classes, self.covariates, self.values)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def class_of(self, item: int) -> int:
        return self.classes[item] if self.classes else 0

    def covariates_of(self, item: int) -> tuple[float | None, ...]:
        return self.values[item] if self.values else super().covariates_of(item)

    def _offset(self, item: int) -> np.ndarray:
        """Return the first voxel of the stored box on the common grid, (3,); may be negative."""
        scan = self.scans[item]
        return np.array(scan.box) + (np.array(self.shape) - np.array(scan.shape)) // 2

    def box(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and one past the last voxel of the box of all channels, (3,) each."""
        low = self._offset(item)
        high = low + np.array(self.scans[item].box_shape)
        return np.clip(low, 0, self.shape), np.clip(high, 0, self.shape)

    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return voxels of one channel, float32 (*sides) in [0, 1], 0 outside the box."""
        stored = np.load(self.scans[item].path, mmap_mode="r", allow_pickle=False)[channel]
        begin = np.array(start) - self._offset(item)  # in the box
        first = np.clip(begin, 0, stored.shape)
        last = np.clip(begin + np.array(sides), 0, stored.shape)
        result = np.zeros(tuple(sides), np.float32)
        if (first < last).all():
            target = (slice(a - b, z - b) for a, z, b in zip(first, last, begin, strict=True))
            result[tuple(target)] = stored[tuple(map(slice, first, last))]
        return result
