"""Label maps changed on purpose: a label grown, moved, or put in."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from nibabel.nifti1 import Nifti1Image

from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, result_suffix
from prod9.data.volume_files.write import refuse_overwrite, write_volume
from prod9.errors import Prod9Error
from prod9.inference.volumes import VolumeLike, stored_volume

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_GROW = re.compile(rf"(-?\d+)=({_NUMBER})%")
_MOVE = re.compile(rf"(-?\d+)=({_NUMBER}),({_NUMBER}),({_NUMBER})")
_INSERT = re.compile(rf"(-?\d+)=sphere:({_NUMBER}),({_NUMBER}),({_NUMBER}),({_NUMBER})")
_LARGEST = 1 << 16


@dataclass(frozen=True)
class Grow:
    """Change the volume of a label by a share; -0.2 is a fifth less."""

    label: int
    share: float

    def __call__(self, labels: np.ndarray, affine: np.ndarray, name: str) -> np.ndarray:
        """Move the surface of the label by the same distance everywhere.

        The voxels with the smallest signed distance from its surface are taken, so that the volume
        is right to a voxel. Others give way; what is left becomes what is nearest.
        """
        inside = _where(labels, self.label, name)
        wanted = round(inside.sum() * (1 + self.share))
        if not 0 < wanted < labels.size:
            raise Prod9Error(
                f"label {self.label} of {name} cannot change by {self.share:+.0%}: there would be "
                f"{max(0, wanted)} of {labels.size} voxels; ask for less."
            )
        distance = _outside(inside, affine) - _outside(~inside, affine)
        order = np.argsort(distance, axis=None, kind="stable")[:wanted]
        chosen = np.zeros(labels.size, bool)
        chosen[order] = True
        chosen = chosen.reshape(labels.shape)
        return np.where(chosen, self.label, _without(labels, inside, affine))


@dataclass(frozen=True)
class Move:
    """Move a label, by mm to the right, the front and the top."""

    label: int
    mm: tuple[float, float, float]

    def __call__(self, labels: np.ndarray, affine: np.ndarray, name: str) -> np.ndarray:
        """Move it by the nearest whole number of voxels; what it leaves becomes what is nearest."""
        inside = _where(labels, self.label, name)
        step = np.rint(np.linalg.solve(affine[:3, :3], self.mm)).astype(int)
        places = np.argwhere(inside) + step
        if (places < 0).any() or (places >= labels.shape).any():
            raise Prod9Error(
                f"label {self.label} of {name} would leave the volume when it is moved by "
                f"{', '.join(f'{each:g}' for each in self.mm)} mm; move it less."
            )
        result = _without(labels, inside, affine)
        result[tuple(places.T)] = self.label
        return result


@dataclass(frozen=True)
class Insert:
    """Put in a sphere, at mm of the scanner's coordinates (RAS+)."""

    label: int
    middle: tuple[float, float, float]
    radius: float

    def __call__(self, labels: np.ndarray, affine: np.ndarray, name: str) -> np.ndarray:
        """Give its label to the voxels whose centres are inside."""
        places = apply_affine(affine, np.moveaxis(np.indices(labels.shape), 0, -1))
        inside = ((places - self.middle) ** 2).sum(-1) <= self.radius**2
        if not inside.any():
            raise Prod9Error(
                f"no voxel of {name} lies in a sphere of {self.radius:g} mm around "
                f"{', '.join(f'{each:g}' for each in self.middle)}; its middle lies at "
                f"{', '.join(f'{round(each)}' for each in places.reshape(-1, 3).mean(0))} mm."
            )
        return np.where(inside, self.label, labels)


def parse(
    grow: Sequence[str] = (), move: Sequence[str] = (), insert: Sequence[str] = ()
) -> list[Grow | Move | Insert]:
    """Read changes as they are written on the command line; growing comes first, then moving.

    Raises:
        Prod9Error: one that is written differently.
    """
    found: list[Grow | Move | Insert] = []
    for text in grow:
        label, percent = _read(_GROW, text, "--grow 1=+20%")
        found.append(Grow(int(label), float(percent) / 100))
    for text in move:
        label, x, y, z = _read(_MOVE, text, "--move 1=0,-3,2.5 (mm)")
        found.append(Move(int(label), (float(x), float(y), float(z))))
    for text in insert:
        label, x, y, z, radius = _read(_INSERT, text, "--insert 1=sphere:10,-4,25,8 (x,y,z,r mm)")
        found.append(Insert(int(label), (float(x), float(y), float(z)), float(radius)))
    for each in found:
        if not 0 < each.label < _LARGEST:
            raise Prod9Error(f"the label to change is {each.label}; give one from 1 to 65535.")
    return found


def _read(pattern: re.Pattern[str], text: str, example: str) -> tuple[str, ...]:
    match = pattern.fullmatch(text.replace(" ", ""))
    if match is None:
        raise Prod9Error(f"{text} is not understood; write {example}.")
    return match.groups()


def edit(stored: StoredVolume, changes: Sequence[Grow | Move | Insert]) -> StoredVolume:
    """Return a label map with some changes, one after another, on the same grid.

    Raises:
        Prod9Error: no change, fractions, a label that is not there, a change that does not fit.
    """
    if not changes:
        raise Prod9Error("give at least one change: --grow, --move or --insert.")
    if not (stored.array == np.rint(stored.array)).all():
        raise Prod9Error(f"{stored.path} is no label map: it has fractions.")
    labels = stored.array.astype(np.int64)
    for change in changes:
        labels = change(labels, stored.affine, str(stored.path))
    dtype = stored.dtype
    if dtype.kind in "iu" and labels.max() > np.iinfo(dtype).max:  # of an inserted label
        dtype = np.min_scalar_type(int(labels.max()))
    return replace(stored, array=labels.astype(np.float32), dtype=dtype)


def edit_labels(
    labels: VolumeLike,
    *,
    grow: Sequence[str] = (),
    move: Sequence[str] = (),
    insert: Sequence[str] = (),
) -> Nifti1Image:
    """Change a label map, as the command ``edit`` does.

    Args:
        labels: the label map; whole numbers.
        grow: such as ``1=+20%``: the volume of label 1 grows by a fifth.
        move: such as ``1=0,-3,2.5``: mm to the right, the front and the top.
        insert: such as ``2=sphere:10,-4,25,8``: a sphere of 8 mm around a point, mm (RAS+).

    Returns:
        The changed map, int32, on the same grid: growing comes first, then moving, then inserting.

    Raises:
        Prod9Error: no change, or one that does not fit; a label that is not there; fractions.
    """
    stored = stored_volume(labels, "the label map")
    found = edit(stored, parse(grow, move, insert))
    return Nifti1Image(found.array.astype(np.int32), stored.affine)


def edit_file(
    path: Path, output: Path, changes: Sequence[Grow | Move | Insert], *, overwrite: bool = False
) -> StoredVolume:
    """Read a label map, change it and write it, with the same grid and header."""
    result_suffix(output)
    if path.resolve() == output.resolve():
        raise Prod9Error(f"{output} is the label map that is read; choose another --output.")
    refuse_overwrite(output, overwrite)
    found = edit(read_volume(path), changes)
    write_volume(output, found.array, like=found, overwrite=overwrite)
    return found


def _where(labels: np.ndarray, label: int, name: str) -> np.ndarray:
    inside = labels == label
    if not inside.any():
        there = ", ".join(map(str, np.unique(labels)[:20]))
        raise Prod9Error(f"{name} has no label {label}; it has {there}.")
    if inside.all():
        raise Prod9Error(f"label {label} fills {name}; there is nothing that could take its place.")
    return inside


def _outside(inside: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the distance of each voxel from ``inside``, mm."""
    from scipy import ndimage  # a fifth of a second

    return cast(np.ndarray, ndimage.distance_transform_edt(~inside, voxel_sizes(affine)))


def _without(labels: np.ndarray, hole: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return a copy in which the voxels of ``hole`` have the label of the nearest other one."""
    from scipy import ndimage

    nearest = ndimage.distance_transform_edt(
        hole, voxel_sizes(affine), return_distances=False, return_indices=True
    )
    return labels[tuple(cast(np.ndarray, nearest))]
