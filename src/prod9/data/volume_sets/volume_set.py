"""A set of volumes to be measured: one grid, names, classes, read when asked for."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.dataset import ArrayDataset, Dataset
from prod9.errors import Prod9Error

ONE_CLASS = ("all",)
"""Class names of a set without classes."""


@dataclass(frozen=True)
class VolumeSet:
    """Volumes of one shape with intensities in [0, 1]."""

    name: str
    """What a table calls it: a folder, or data set and split."""
    names: tuple[str, ...]
    """One per volume, unique."""
    labels: np.ndarray
    """int64 (N,): indices into ``class_names``."""
    class_names: tuple[str, ...]
    """:data:`ONE_CLASS` where nothing is known of classes."""
    shape: tuple[int, int, int]
    """Voxels per side, axes RAS+."""
    spacing_mm: tuple[float, float, float] | None
    """None where it is not known."""
    intensity: str
    """How stored intensities became [0, 1]."""
    read: Callable[[int], np.ndarray]
    """Index -> float32 (D, H, W) in [0, 1]. May read a file each time."""
    files: tuple[Path, ...] | None = None
    """Of each volume, where each has one."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one volume, float32 (D, H, W) in [0, 1]."""
        return self.read(index)

    @property
    def has_classes(self) -> bool:
        """Whether anything is known of classes."""
        return self.class_names != ONE_CLASS

    @cached_property
    def counts(self) -> dict[str, int]:
        """Volumes of each class that occurs."""
        found = np.bincount(self.labels, minlength=len(self.class_names))
        return {name: int(n) for name, n in zip(self.class_names, found, strict=True) if n}

    def of_class(self, label: int) -> np.ndarray:
        """Return the indices of the volumes of a class."""
        return np.flatnonzero(self.labels == label)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Give all volumes in order, float32 (B, 1, D, H, W)."""
        for start in range(0, len(self), size):
            part = range(start, min(start + size, len(self)))
            yield torch.from_numpy(np.stack([self[i] for i in part]))[:, None]

    def tensor(self, indices: Sequence[int] | np.ndarray | None = None) -> Tensor:
        """Return volumes (all when left out), float32 (N, 1, D, H, W)."""
        chosen = range(len(self)) if indices is None else [int(i) for i in indices]
        return torch.from_numpy(np.stack([self[i] for i in chosen]))[:, None]

    def select(self, indices: Sequence[int] | np.ndarray) -> "VolumeSet":
        """Return some of the volumes, in the order of ``indices``."""
        chosen = [int(i) for i in indices]
        whole = self.read

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
        """Digest over names, classes and voxels."""
        digest = hashlib.sha256()
        for index, name in enumerate(self.names):
            digest.update(f"{name}\0{self.class_names[int(self.labels[index])]}\0".encode())
            digest.update(np.ascontiguousarray(self[index]).tobytes())
        return digest.hexdigest()


def of_dataset(data: Dataset, count: int | None = None) -> VolumeSet:
    """Return every channel of every item of a data set, or of its first ``count`` items.

    The class of a volume is its label, see :meth:`prod9.data.dataset.Dataset.label_of`.
    """
    channels = len(data.channels)
    rows = range(channels * (len(data) if count is None else count))
    pairs = [divmod(row, channels) for row in rows]
    return VolumeSet(
        name=data.name,
        names=tuple(data.name_of(*pair) for pair in pairs),
        labels=np.array([data.label_of(*pair) for pair in pairs], np.int64),
        class_names=data.label_names,
        shape=data.shape,
        spacing_mm=data.spacing_mm,
        intensity=data.intensity,
        read=lambda index: data.whole(*divmod(rows[index], channels)),
    )


def of_tensor(
    volumes: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
    name: str,
    spacing_mm: tuple[float, float, float] | None = None,
) -> VolumeSet:
    """Return volumes (N, 1, D, H, W) in [0, 1] in memory as a collection."""
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
    """Return all collections with the class names of ``reference``, itself first.

    Where one of them knows no classes, none is compared by class.

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
    if not all(collection.has_classes for collection in everything):
        return tuple(without_classes(collection) for collection in everything)
    return (reference, *(_renamed(reference, other) for other in others))


def _renamed(reference: VolumeSet, other: VolumeSet) -> VolumeSet:
    """Return ``other`` with the labels of ``reference``."""
    known = {name: label for label, name in enumerate(reference.class_names)}
    unknown = sorted(set(other.counts) - set(known))
    if unknown:
        raise Prod9Error(
            f"{other.name} has the class {unknown[0]}, which {reference.name} does not know (it "
            f"has: {', '.join(reference.class_names)}); rename it in the manifest."
        )
    new = np.array([known.get(name, -1) for name in other.class_names])
    return replace(other, labels=new[other.labels], class_names=reference.class_names)


def without_classes(collection: VolumeSet) -> VolumeSet:
    """Return the same volumes as members of one class."""
    return replace(collection, labels=np.zeros(len(collection), np.int64), class_names=ONE_CLASS)
