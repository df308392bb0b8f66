"""Preprocessed scans of several modalities, on one common grid, read in part or whole."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prod9.data.brats.cases import MODALITIES


@dataclass(frozen=True)
class Scan:
    """One preprocessed scan."""

    name: str
    subject: str
    digest: str
    """SHA-256 over the files' contents and the preprocessing."""
    path: Path
    """float16 ``.npy``, (M, d, h, w) in [0, 1]: the box of all modalities."""
    shape: tuple[int, int, int]
    """Sides of the whole scan after resampling, RAS+."""
    box: tuple[int, int, int]
    """First voxel of the box in the whole scan."""
    spacing_mm: tuple[float, float, float]
    stored_shape: tuple[int, int, int]
    """As the files have it, before resampling and reorientation."""
    stored_spacing_mm: tuple[float, float, float]


@dataclass(frozen=True)
class ScanSet:
    """Scans on one common grid, each in its middle."""

    scans: tuple[Scan, ...]
    shape: tuple[int, int, int]
    """Sides of the common grid: the largest of any scan, so that nothing is cut off."""

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose scans these are, each once, sorted."""
        return tuple(sorted({scan.subject for scan in self.scans}))

    @property
    def digest(self) -> str:
        """SHA-256 over the scans and the grid."""
        parts = [str(self.shape), *(f"{scan.name} {scan.digest}" for scan in self.scans)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def box(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """First and one past the last voxel of a scan's box in the common grid, (3,) each."""
        scan = self.scans[index]
        stored = np.load(scan.path, mmap_mode="r", allow_pickle=False)
        margin = (np.array(self.shape) - np.array(scan.shape)) // 2
        low = np.array(scan.box) + margin
        return low, low + np.array(stored.shape[1:])

    def crop(
        self, index: int, modality: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return voxels of one modality, float32 (*sides) in [0, 1], 0 outside the box."""
        stored = np.load(self.scans[index].path, mmap_mode="r", allow_pickle=False)
        low, _ = self.box(index)
        result = np.zeros(tuple(sides), np.float32)
        source: list[slice] = [slice(modality, modality + 1)]
        target: list[slice] = []
        for axis, (begin, side) in enumerate(zip(start, sides, strict=True)):
            first = max(int(low[axis]), begin)
            last = max(first, min(int(low[axis]) + stored.shape[axis + 1], begin + side))
            source.append(slice(first - int(low[axis]), last - int(low[axis])))
            target.append(slice(first - begin, last - begin))
        result[tuple(target)] = stored[tuple(source)][0]
        return result

    def whole(self, index: int, modality: int) -> np.ndarray:
        """Return one modality of a scan on the common grid, float32 in [0, 1]."""
        return self.crop(index, modality, (0, 0, 0), self.shape)

    def first(self, count: int) -> "ScanSet":
        """Return the first ``count`` scans, on the same grid."""
        return ScanSet(self.scans[:count], self.shape)

    def select(self, keep: Callable[[Scan], bool]) -> "ScanSet":
        """Return the scans that ``keep`` is true of, on the same grid."""
        return ScanSet(tuple(scan for scan in self.scans if keep(scan)), self.shape)


def common_grid(scans: Sequence[Scan]) -> ScanSet:
    """Put scans on the smallest grid that holds each of them."""
    d, h, w = (max(scan.shape[axis] for scan in scans) for axis in range(3))
    return ScanSet(tuple(scans), (d, h, w))


def whole_volumes(scans: ScanSet) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield (name, modality, volume float32 on the common grid) of all modalities of all scans."""
    for index, scan in enumerate(scans.scans):
        for modality, name in enumerate(MODALITIES):
            yield f"{scan.name}/{name}", modality, scans.whole(index, modality)
