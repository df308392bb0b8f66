"""Where a scan's voxels lie: to the training geometry (RAS axes, one spacing), and back."""

from collections.abc import Sequence
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

from prod9.errors import Prod9Error
from prod9.shapes import MAX_VOXELS

# Headers round: a spacing this close to the wanted one is the wanted one, and stays exact.
SPACING_TOLERANCE = 1e-3
# Closer to flat than this, an affine cannot be told from one that has lost an axis.
_FLAT = 1e-6
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class Placement:
    """A scan's own grid, the RAS grid made from it, and the way there and back.

    The RAS grid has the scan's axes, permuted and flipped so that they point as nearly as they can
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
    """Between voxel centres along the RAS axes: what the whole number of voxels makes of the
    wanted spacing."""
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
        """Return the placement of a scan.

        Args:
            shape: Its three sides, in voxels.
            affine: (4, 4), voxel to mm.
            spacing_mm: Wanted along the RAS axes. An axis that has it already, to 0.1 %, is not
                resampled. None keeps the scan's own.
            name: Of the scan, for messages.

        Raises:
            Prod9Error: the affine places no volume, the wanted spacing is not positive, or the
                volume would be larger than prod9 reads; the sentence names the scan.
        """
        source = _sides(shape, name)
        affine = np.array(affine, dtype=np.float64)
        _require_volume(affine, name)
        orientation = io_orientation(affine)
        upright = affine @ inv_ornt_aff(orientation, source)
        sides = _permuted(source, orientation)
        own = voxel_sizes(upright)
        wanted = own if spacing_mm is None else np.asarray(spacing_mm, dtype=np.float64)
        if not (np.isfinite(wanted) & (wanted > 0)).all():
            raise Prod9Error(
                f"{name} cannot have the spacing {_times(spacing_mm or ())} mm; give three "
                "positive numbers."
            )
        resampled = tuple(
            side if abs(want - have) <= SPACING_TOLERANCE * have else _count(side * have / want)
            for side, have, want in zip(sides, own.tolist(), wanted.tolist(), strict=True)
        )
        result = _sides(resampled, name)
        if result[0] * result[1] * result[2] > MAX_VOXELS:
            raise Prod9Error(
                f"{name} would have {_times(result)} voxels at a spacing of "
                f"{_times(spacing_mm or ())} mm, more than the {MAX_VOXELS} prod9 reads; choose a "
                "wider spacing."
            )
        factor = np.array(sides) / np.array(result)
        # Voxel 0 of the coarser grid lies (factor - 1) / 2 finer voxels further from the face.
        stretch = np.diag([*factor, 1.0])
        stretch[:3, 3] = (factor - 1) / 2
        spacing = tuple(float(side) for side in own * factor)
        return cls(source, affine, result, (spacing[0], spacing[1], spacing[2]), upright @ stretch)

    def apply(self, array: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Bring an array from the scan's grid to the RAS grid.

        Without resampling the voxels are the same to the bit. Otherwise they are interpolated
        linearly, axis by axis; an axis that shrinks by more than 2 is averaged, so that noise does
        not alias (by a whole number k: the mean of k voxels).

        Args:
            array: (D, H, W) of ``source_shape``; intensities, a mask or labels.
            nearest: For masks and labels: take the nearest voxel, keep the dtype.

        Returns:
            A new array of ``shape``: float32, or the array's dtype if ``nearest``.

        Raises:
            Prod9Error: the array has another shape.
        """
        _require_shape(array, self.source_shape)
        upright = apply_orientation(array, io_orientation(self.source_affine))  # a view
        return _own(_resampled(upright, self.shape, nearest), array, nearest)

    def invert(self, array: np.ndarray, *, nearest: bool = False) -> np.ndarray:
        """Bring an array from the RAS grid back to the scan's; the counterpart of :meth:`apply`.

        Args:
            array: (D, H, W) of ``shape``.
            nearest: As for :meth:`apply`.

        Returns:
            A new array of ``source_shape``: float32, or the array's dtype if ``nearest``.

        Raises:
            Prod9Error: the array has another shape.
        """
        _require_shape(array, self.shape)
        orientation = io_orientation(self.source_affine)
        upright = _resampled(array, _permuted(self.source_shape, orientation), nearest)
        back = apply_orientation(upright, ornt_transform(_RAS, orientation))
        return _own(back, array, nearest)


def _resampled(array: np.ndarray, shape: tuple[int, ...], nearest: bool) -> np.ndarray:
    """Return the array on a grid of ``shape`` that fills the same box; itself if that is its own.

    The result need be neither contiguous nor a copy: see :func:`_own`.
    """
    changed = [axis for axis in range(3) if array.shape[axis] != shape[axis]]
    if nearest:
        for axis in changed:
            array = array.take(_nearest(array.shape[axis], shape[axis]), axis)
        return array
    if not changed:
        return array
    tensor = torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    # What shrinks most comes first: it leaves the least to do for the others.
    for axis in sorted(changed, key=lambda axis: shape[axis] / array.shape[axis]):
        tensor = _linear(tensor, axis, shape[axis])
    return tensor.numpy()


def _own(result: np.ndarray, source: np.ndarray, nearest: bool) -> np.ndarray:
    """Return the result contiguous, of its final dtype, and sharing no memory with the source."""
    dtype = result.dtype if nearest else np.dtype(np.float32)
    result = np.ascontiguousarray(result, dtype=dtype)
    # A flipped axis of one voxel counts as contiguous, but torch refuses its negative stride.
    shared = min(result.strides) < 0 or np.may_share_memory(result, source)
    return result.copy() if shared else result


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


def _nearest(before: int, after: int) -> np.ndarray:
    """Return the voxel, of ``before``, that holds the centre of each of ``after``."""
    return (2 * np.arange(after) + 1) * before // (2 * after)


def _count(voxels: float) -> int:
    # The largest number only keeps round() from an infinite one; a volume of it is refused.
    return max(1, round(min(voxels, float(MAX_VOXELS + 1))))


def _permuted(shape: tuple[int, int, int], orientation: np.ndarray) -> tuple[int, ...]:
    """Return the sides along the RAS axes of a scan with these sides."""
    return tuple(shape[int(axis)] for axis in np.argsort(orientation[:, 0]))


def _sides(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise Prod9Error(
            f"{name} has the shape {_times(shape)}; a volume has three axes of voxels."
        )
    return int(shape[0]), int(shape[1]), int(shape[2])


def _require_volume(affine: np.ndarray, name: str) -> None:
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise Prod9Error(
            f"{name} has an affine that is not 4 x 4 finite numbers; repair its header."
        )
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    if spacing.min() <= 0 or abs(np.linalg.det(axes / spacing)) < _FLAT:
        raise Prod9Error(
            f"{name} has an affine whose axes span no volume (spacing {_times(spacing.tolist())} "
            "mm, axes of no length or in one plane); repair its header."
        )


def _require_shape(array: np.ndarray, shape: tuple[int, int, int]) -> None:
    if array.shape != shape:
        raise Prod9Error(
            f"an array of {_times(array.shape)} voxels does not fit the grid of {_times(shape)}; "
            "give one that belongs to the same scan."
        )


def _times(numbers: Sequence[int | float]) -> str:
    return " x ".join(
        f"{number:g}" if isinstance(number, float) else str(number) for number in numbers
    )
