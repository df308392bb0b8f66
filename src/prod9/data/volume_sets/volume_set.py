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

from prod9.data.array_dataset import ArrayDataset
from prod9.data.dataset import Dataset
from prod9.data.volume_files.stored_volume import times
from prod9.errors import Prod9Error

ONE_CLASS = ("all",)
"""Class names of a set without classes."""
MEMORY_BUDGET = 2 << 30
"""Bytes of volumes that a set keeps in memory; the others are read again each time."""


@dataclass(frozen=True)
class VolumeSet:
    """Volumes of one shape with intensities in [0, 1]."""

    name: str
    """Shown in tables: a folder, or data set and split."""
    names: tuple[str, ...]
    """One per volume, unique."""
    labels: np.ndarray
    """int64 (N,): indices into ``class_names``."""
    class_names: tuple[str, ...]
    """:data:`ONE_CLASS` if the classes are not known."""
    shape: tuple[int, int, int]
    """Voxels per side, axes RAS+."""
    spacing_mm: tuple[float, float, float] | None
    """None if not known."""
    intensity: str
    """How stored intensities became [0, 1]."""
    read: Callable[[int], np.ndarray]
    """Index -> float32 (D, H, W) in [0, 1]. May read a file each time."""
    files: tuple[Path, ...] | None = None
    """One per volume; None for volumes that are no files."""

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
        chosen = [int(i) for i in indices]

        def read(index: int) -> np.ndarray:
            return self.read(chosen[index])

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


def of_dataset(data: Dataset) -> VolumeSet:
    """Return every channel of every item of a data set, but for those of labels.

    The class of a volume is its label, see :meth:`prod9.data.dataset.Dataset.label_of`.
    """
    pairs = [(item, channel) for item in range(len(data)) for channel in data.image_channels]
    return VolumeSet(
        name=data.name,
        names=tuple(data.name_of(*pair) for pair in pairs),
        labels=np.array([data.label_of(*pair) for pair in pairs], np.int64),
        class_names=data.label_names,
        shape=data.shape,
        spacing_mm=data.spacing_mm,
        intensity=data.intensity,
        read=lambda index: data.whole(*pairs[index]),
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
    return of_dataset(
        ArrayDataset(
            name,
            images[:, None],
            names=names,
            classes=indices,
            class_names=class_names,
            spacing_mm=spacing_mm,
        )
    )


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
                f"the volumes of {other.name} are {times(other.shape)}, those of {reference.name} "
                f"{times(reference.shape)}; resample one to the other's grid first."
            )
    if not all(volumes.has_classes for volumes in everything):
        return tuple(map(without_classes, everything))
    known = {name: label for label, name in enumerate(reference.class_names)}
    relabelled: list[VolumeSet] = []
    for other in others:
        if unknown := sorted(set(other.counts) - set(known)):
            raise Prod9Error(
                f"{other.name} has the class {unknown[0]}, which {reference.name} does not know "
                f"(it has: {', '.join(known)}); rename it in the manifest."
            )
        new = np.array([known.get(name, -1) for name in other.class_names])
        labels = new[other.labels]
        relabelled.append(replace(other, labels=labels, class_names=reference.class_names))
    return (reference, *relabelled)


def without_classes(volumes: VolumeSet) -> VolumeSet:
    """Return the same volumes as members of one class."""
    return replace(volumes, labels=np.zeros(len(volumes), np.int64), class_names=ONE_CLASS)
