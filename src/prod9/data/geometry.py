"""Where a scan's voxels lie: to the training geometry (RAS axes, one spacing), and back."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from prod9.data.volume_files.stored_volume import StoredVolume, times
from prod9.errors import Prod9Error
from prod9.shapes import MAX_VOXELS

SPACING_TOLERANCE = 1e-3
"""Headers round: an axis whose spacing differs by less than this share is not resampled."""
_FLAT = 1e-6
"""Smallest volume spanned by the directions of an affine's axes; 1 where they are orthogonal."""
GRID_TOLERANCE_MM = 1e-3
"""Corners of two volumes this close are in the same place."""
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class Placement:
    """A scan's own grid, the RAS grid made from it, and the way there and back.

    The RAS grid has the scan's axes, permuted and flipped so that they point as nearly as possible
    to the right, the front and the top. An oblique scan is not rotated: its affine stays oblique.
    Both grids fill the same box: its faces stay where they are, whatever the spacing.
    """

    source_shape: tuple[int, int, int]
    """Voxels along the scan's own axes."""
    source_affine: np.ndarray
    """float64 (4, 4): the scan's voxel to mm."""
    shape: tuple[int, int, int]
    """Voxels along the RAS axes, after resampling."""
    spacing_mm: tuple[float, float, float]
    """Between voxel centres along the RAS axes; near the wanted one, as voxels are whole."""
    affine: np.ndarray
    """float64 (4, 4): the RAS grid's voxel to mm."""

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        affine: np.ndarray,
        spacing_mm: tuple[float, float, float] | None,
        name: str = "the scan",
    ) -> "Placement":
        """Return the placement of a scan (D, H, W).

        Args:
            shape: its sides, in voxels.
            affine: (4, 4), voxel to mm.
            spacing_mm: wanted along the RAS axes; None keeps the scan's own.
            name: of the scan, for messages.

        Raises:
            Prod9Error: the axes span no volume, or the resampled volume would be too large.
        """
        affine = np.array(affine, dtype=np.float64)
        require_volume(affine, name)
        orientation = io_orientation(affine)
        upright = affine @ inv_ornt_aff(orientation, tuple(shape))
        sides = _permuted(shape, orientation)
        own = voxel_sizes(upright)
        wanted = own if spacing_mm is None else np.asarray(spacing_mm, dtype=np.float64)
        d, h, w = (
            side if abs(want - have) <= SPACING_TOLERANCE * have else _count(side * have / want)
            for side, have, want in zip(sides, own.tolist(), wanted.tolist(), strict=True)
        )
        result = d, h, w
        if d * h * w > MAX_VOXELS:
            raise Prod9Error(
                f"{name} would have {times(result)} voxels at a spacing of "
                f"{times(spacing_mm or ())} mm, more than the {MAX_VOXELS} prod9 reads; choose a "
                "wider spacing."
            )
        factor = np.array(sides) / np.array(result)
        # Voxel 0 of the coarser grid lies (factor - 1) / 2 finer voxels further from the face.
        stretch = np.diag([*factor, 1.0])
        stretch[:3, 3] = (factor - 1) / 2
        x, y, z = (own * factor).tolist()
        a, b, c = shape
        return cls((a, b, c), affine, result, (x, y, z), upright @ stretch)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Bring intensities or a mask from the scan's grid to the RAS grid.

        Without resampling the voxels are the same to the bit. Otherwise they are interpolated
        linearly, axis by axis; an axis that shrinks by more than 2 is averaged, so that noise does
        not alias (by a whole number k: the mean of k voxels). Returns a new array, float32.
        """
        assert array.shape == self.source_shape
        upright = apply_orientation(array, io_orientation(self.source_affine))  # a view
        return np.array(_resampled(upright, self.shape), np.float32, order="C")

    def nearest(self, array: np.ndarray) -> np.ndarray:
        """Bring labels from the scan's grid to the RAS grid: each voxel takes the nearest one's.

        Returns a new array of the same type.
        """
        assert array.shape == self.source_shape
        upright = apply_orientation(array, io_orientation(self.source_affine))
        return np.array(_nearest(upright, self.shape), order="C")

    def invert_nearest(self, array: np.ndarray) -> np.ndarray:
        """Bring labels back to the scan's grid; the counterpart of :meth:`nearest`."""
        return np.array(self._back(array, _nearest), order="C")

    def invert(self, array: np.ndarray) -> np.ndarray:
        """Bring an array of ``shape`` back to the scan's grid; the counterpart of :meth:`apply`."""
        return np.array(self._back(array, _resampled), np.float32, order="C")

    def _back(
        self,
        array: np.ndarray,
        resampled: Callable[[np.ndarray, tuple[int, ...]], np.ndarray],
    ) -> np.ndarray:
        assert array.shape == self.shape
        orientation = io_orientation(self.source_affine)
        upright = resampled(array, _permuted(self.source_shape, orientation))
        return apply_orientation(upright, ornt_transform(_RAS, orientation))


def _resampled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array on a grid of ``shape`` that fills the same box; itself if that is its own.

    The result may share memory with the array.
    """
    changed = [axis for axis in range(3) if array.shape[axis] != shape[axis]]
    if not changed:
        return array
    tensor = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    # What shrinks most comes first: it leaves the least to do for the others.
    for axis in sorted(changed, key=lambda axis: shape[axis] / array.shape[axis]):
        tensor = _linear(tensor, axis, shape[axis])
    return tensor.numpy()


def _nearest(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the array on a grid of ``shape`` that fills the same box, with the nearest voxels."""
    places = [
        ((np.arange(side) + 0.5) * before / side).astype(int)
        for before, side in zip(array.shape, shape, strict=True)
    ]
    return array[np.ix_(*places)]


def _linear(volume: torch.Tensor, axis: int, side: int) -> torch.Tensor:
    """Return ``volume`` with ``side`` voxels along ``axis``."""
    lines = volume.movedim(axis, -1)
    before = lines.shape[-1]
    # Shrinking by more than 2, linear interpolation would skip voxels: take samples no further
    # apart than the voxels, and their mean. A ramp stays a ramp, and nothing overshoots.
    samples = 1 if before <= 2 * side else -(-before // side)
    flat = lines.reshape(1, -1, before)
    fine = F.interpolate(flat, size=side * samples, mode="linear", align_corners=False)
    coarse = fine.view(*lines.shape[:-1], side, samples).mean(-1) if samples > 1 else fine
    return coarse.view(*lines.shape[:-1], side).movedim(-1, axis)


def _count(voxels: float) -> int:
    # The largest number only keeps round() from an infinite one; a volume of it is refused.
    return max(1, round(min(voxels, float(MAX_VOXELS + 1))))


def _permuted(shape: Sequence[int], orientation: np.ndarray) -> tuple[int, int, int]:
    """Return the sides along the RAS axes of a scan with these sides."""
    x, y, z = (shape[int(axis)] for axis in np.argsort(orientation[:, 0]))
    return x, y, z


def grid_difference(first: StoredVolume, second: StoredVolume) -> str | None:
    """Say how two grids differ, or return None."""
    shape = first.array.shape
    if shape != second.array.shape:
        return f"{times(shape)} and {times(second.array.shape)} voxels"
    corners = np.array([(*c, 1) for c in itertools.product(*((0, side - 1) for side in shape))])
    apart = np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1).max()
    if apart > GRID_TOLERANCE_MM:
        return f"affines that put a corner {apart:.3g} mm apart"
    return None


def require_volume(affine: np.ndarray, name: str) -> None:
    """Refuse an affine that is not finite or whose axes span no volume; ``name`` is the scan's."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise Prod9Error(
            f"{name} has an affine that is not 4 x 4 finite numbers; repair its header."
        )
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if spacing.min() <= 0 or abs(np.linalg.det(axes / spacing)) < _FLAT:
        raise Prod9Error(
            f"{name} has an affine whose axes span no volume (spacing "
            f"{times(spacing.tolist())} mm, axes of no length or in one plane); repair its header."
        )
