"""Random changes of shape: rotation, zoom and a smooth deformation, for training.

The deformation is a free-form deformation (Rueckert et al. 1999, IEEE TMI 18): cubic B-splines over
a coarse grid of control points.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from prod9.config.data import SpatialAugmentationConfig
from prod9.data.dataset import Dataset

_POINTS = 7
"""Control points per side; of these the outermost lie beyond the volume."""


def changes_shape(change: object) -> bool:
    """Return whether a configuration asks for any change of shape."""
    return isinstance(change, SpatialAugmentationConfig) and bool(
        change.rotation_deg or change.zoom or change.deformation_mm
    )


@dataclass(frozen=True)
class Warp:
    """Where each voxel of a changed volume comes from."""

    matrix: np.ndarray
    """float64 (3, 3): mm around the middle -> mm around the middle."""
    control: np.ndarray
    """float64 (3, n, n, n): displacement at the control points, mm."""

    @classmethod
    def draw(cls, random: np.random.Generator, change: SpatialAugmentationConfig) -> "Warp":
        """Draw a change; always the same draws, whatever is switched on."""
        angles = np.deg2rad(random.uniform(-1, 1, 3) * change.rotation_deg)
        zoom = 1 + random.uniform(-1, 1, 3) * change.zoom
        control = random.standard_normal((3, *[_POINTS] * 3)) * change.deformation_mm
        matrix = np.diag(1 / zoom)
        for axis, angle in enumerate(angles):
            a, b = [other for other in range(3) if other != axis]
            turn = np.eye(3)
            turn[[a, a, b, b], [a, b, a, b]] = (
                np.cos(angle),
                -np.sin(angle),
                np.sin(angle),
                np.cos(angle),
            )
            matrix = matrix @ turn
        return cls(matrix, control)

    def coordinates(
        self,
        shape: Sequence[int],
        spacing: Sequence[float],
        start: Sequence[int],
        sides: Sequence[int],
    ) -> np.ndarray:
        """Return the source of each voxel of a crop, float32 (3, *sides), in the whole's voxels."""
        middle, size = (np.array(shape) - 1) / 2, np.array(spacing)
        axes = [np.arange(begin, begin + side) for begin, side in zip(start, sides, strict=True)]
        # Separable: along one axis after the other, which is quick for the whole of a volume.
        control = (self.control / size[:, None, None, None]).astype(np.float32)
        for axis, (places, side) in enumerate(zip(axes, shape, strict=True), 1):
            control = np.moveaxis(np.moveaxis(control, axis, -1) @ _basis(places, side).T, -1, axis)
        voxels = self.matrix * size / size[:, None]  # between voxels, not mm
        fixed = middle - voxels @ middle
        source = np.ascontiguousarray(control)
        for row in range(3):
            x, y, z = (np.float32(voxels[row, axis]) * axes[axis] for axis in range(3))
            source[row] += (x + np.float32(fixed[row]))[:, None, None] + y[:, None] + z
        return source

    def crop(
        self, data: Dataset, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return a crop of a changed channel, float32; the border goes on where the source ends.

        Intensities are interpolated linearly, labels are those of the nearest voxel.
        """
        source = self.coordinates(data.shape, data.spacing_mm or (1.0, 1.0, 1.0), start, sides)
        shape = np.array(data.shape)
        low = np.clip(np.floor(source.reshape(3, -1).min(1)).astype(int), 0, shape - 1)
        high = np.clip(np.ceil(source.reshape(3, -1).max(1)).astype(int) + 1, low + 1, shape)
        part = data.crop(item, channel, low.tolist(), (high - low).tolist())
        # grid_sample counts from the last axis, and from -1 to 1 between the outer voxels.
        inner = np.maximum(high - low - 1, 1)
        scale = (2 / inner).astype(np.float32)[:, None, None, None]
        relative = source * scale - (low * (2 / inner) + 1).astype(np.float32)[:, None, None, None]
        grid = torch.from_numpy(np.stack([*relative[::-1]], -1))
        labels = data.channels[channel].kind == "labels"
        found = F.grid_sample(
            torch.from_numpy(np.ascontiguousarray(part))[None, None],
            grid[None],
            mode="nearest" if labels else "bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return found[0, 0].numpy()


def _basis(places: np.ndarray, side: int) -> np.ndarray:
    """Return the cubic B-spline weights of the control points, float32 (len(places), n)."""
    cells = _POINTS - 3  # the spline is complete between the second and the last but one point
    at = np.clip(places / max(side - 1, 1) * cells, 0, cells - 1e-9)
    first = np.floor(at).astype(int)
    t = at - first
    four = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1
    )
    weights = np.zeros((len(places), _POINTS), np.float32)
    np.put_along_axis(weights, first[:, None] + np.arange(4), four / 6, axis=1)
    return weights
