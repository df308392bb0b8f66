"""A set of volumes to be measured: one grid, names, classes. Volumes are read when needed."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.volumes import ArrayVolumes
from prod9.errors import Prod9Error

ONE_CLASS = ("all",)
"""Class names of a set without classes."""
MEMORY_BUDGET = 2 << 30
"""Bytes of volumes that a set keeps in memory; the others are read again each time."""


@dataclass(frozen=True)
class VolumeSet:
    """Volumes of one shape with intensities in [0, 1]."""

    name: str
    """What tables call it: a folder, or data set and split."""
    names: tuple[str, ...]
    """One per volume, unique."""
    labels: np.ndarray
    """int64 (N,): indices into ``class_names``."""
    class_names: tuple[str, ...]
    """:data:`ONE_CLASS` where the classes are not known."""
    shape: tuple[int, int, int]
    """Voxels per side, axes RAS+."""
    spacing_mm: tuple[float, float, float] | None
    """None where it is not known."""
    intensity: str
    """How stored intensities became [0, 1]."""
    read: Callable[[int], np.ndarray]
    """Index -> float32 (D, H, W) in [0, 1]. May read a file each time."""
    files: tuple[Path, ...] | None = None
    """One per volume, where each has one."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.read(index)

    @property
    def has_classes(self) -> bool:
        """Whether the classes are known."""
        return self.class_names != ONE_CLASS

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of volumes of each class that occurs."""
        found = np.bincount(self.labels, minlength=len(self.class_names))
        return {name: int(n) for name, n in zip(self.class_names, found, strict=True) if n}

    def of_class(self, label: int) -> np.ndarray:
        """Return the indices of the volumes of a class."""
        return np.flatnonzero(self.labels == label)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Yield all volumes in order, float32 (B, 1, D, H, W)."""
        for start in range(0, len(self), size):
            yield self.tensor(range(start, min(start + size, len(self))))

    def tensor(self, indices: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Return some volumes, or all, float32 (N, 1, D, H, W)."""
        chosen = range(len(self)) if indices is None else indices
        return torch.from_numpy(np.stack([self[int(i)] for i in chosen]))[:, None]

    def select(self, indices: Sequence[int] | np.ndarray) -> "VolumeSet":
        """Return some of the volumes, in the order of ``indices``."""
        chosen, whole = [int(i) for i in indices], self.read

        def read(index: int) -> np.ndarray:
            return whole(chosen[index])

        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            labels=self.labels[chosen],
            read=read,
            files=None if self.files is None else tuple(self.files[i] for i in chosen),
        )

    @cached_property
    def sha256(self) -> str:
        """Digest of names, classes and voxels."""
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            digest.update(f"{name}\0{self.class_names[int(self.labels[index])]}\0".encode())
            digest.update(np.ascontiguousarray(self[index]).tobytes())
        return digest.hexdigest()

    @cached_property
    def intensity_range(self) -> tuple[float, float]:
        """Lowest and highest intensity of all voxels; reads all volumes."""
        ends = [(float(v.min()), float(v.max())) for v in map(self.read, range(len(self)))]
        return min(low for low, _ in ends), max(high for _, high in ends)


def kept_in_memory(
    read: Callable[[int], np.ndarray], shape: tuple[int, int, int]
) -> Callable[[int], np.ndarray]:
    """Return ``read`` with a cache of float32 volumes, as many as :data:`MEMORY_BUDGET` holds."""
    room, kept = MEMORY_BUDGET // (4 * math.prod(shape)), dict[int, np.ndarray]()

    def cached(index: int) -> np.ndarray:
        if index not in kept:
            volume = read(index)
            if len(kept) >= room:
                return volume
            kept[index] = volume
        return kept[index].copy()  # the caller may change it

    return cached


def of_volume_set(
    volumes: ArrayVolumes, name: str, spacing_mm: tuple[float, float, float] | None = None
) -> VolumeSet:
    """Return volumes in memory (uint8, or float in [0, 1]) as a set."""
    images = volumes.images
    stored = images.dtype == np.uint8

    def read(index: int) -> np.ndarray:
        if stored:
            return np.divide(images[index], 255, dtype=np.float32)
        return images[index].astype(np.float32)

    d, h, w = images.shape[1:]
    return VolumeSet(
        name=name,
        names=tuple(volumes.names),
        labels=volumes.labels,
        class_names=volumes.class_names,
        shape=(d, h, w),
        spacing_mm=spacing_mm,
        intensity="uint8 / 255" if stored else "stored in [0, 1]",
        read=read,
    )


def of_tensor(
    volumes: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    name: str,
    spacing_mm: tuple[float, float, float] | None = None,
) -> VolumeSet:
    """Return volumes (N, 1, D, H, W) in [0, 1] in memory as a set."""
    images = volumes[:, 0].float().cpu().numpy()
    indices = labels.cpu().numpy().astype(np.int64)
    digits = len(str(len(images)))
    names = [f"{n:0{digits}d}_{class_names[label]}" for n, label in enumerate(indices)]
    return of_volume_set(ArrayVolumes(images, indices, names, class_names, ()), name, spacing_mm)


def comparable(reference: VolumeSet, *others: VolumeSet) -> tuple[VolumeSet, ...]:
    """Return all sets, ``reference`` first, with the class names of ``reference``.

    If the classes of one set are not known, all sets are returned without classes.

    Raises:
        Prod9Error: another shape, or a class that the reference does not have.
    """
    everything = (reference, *others)
    for other in others:
        if other.shape != reference.shape:
            raise Prod9Error(
                f"the volumes of {other.name} are {'x'.join(map(str, other.shape))}, those of "
                f"{reference.name} {'x'.join(map(str, reference.shape))}; resample one to the "
                "other's grid first."
            )
    if not all(volumes.has_classes for volumes in everything):
        return tuple(map(without_classes, everything))
    return (reference, *(_relabelled(reference, other) for other in others))


def _relabelled(reference: VolumeSet, other: VolumeSet) -> VolumeSet:
    """Return ``other`` with the labels of ``reference``."""
    known = {name: label for label, name in enumerate(reference.class_names)}
    for name in sorted(other.counts):
        if name not in known:
            raise Prod9Error(
                f"{other.name} has the class {name}, which {reference.name} does not know (it has: "
                f"{', '.join(reference.class_names)}); rename it in the manifest."
            )
    new = np.array([known.get(name, -1) for name in other.class_names])
    return replace(other, labels=new[other.labels], class_names=reference.class_names)


def without_classes(volumes: VolumeSet) -> VolumeSet:
    """Return the same volumes as members of one class."""
    return replace(volumes, labels=np.zeros(len(volumes), np.int64), class_names=ONE_CLASS)
