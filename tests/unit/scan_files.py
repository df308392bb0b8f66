"""Small scans as files."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from prod9.config import PreprocessingConfig

# The whole foreground's range: hand results need no percentiles.
PREPROCESSING = PreprocessingConfig(spacing_mm=(1.0, 1.0, 1.0), percentiles=(0.0, 100.0))

# Axes to the left, the front and the bottom, permuted, of 1.2, 0.9 and 2 mm, and not at right
# angles to the scanner's.
OBLIQUE = np.array([[0, -0.85, 0.3, 40], [1.2, 0, 0, -21], [0, -0.3, -2.0, 17.5], [0, 0, 0, 1]])
AFFINES = {
    "1 mm": np.array([[1.0, 0, 0, -7], [0, 1, 0, 3], [0, 0, 1, 9], [0, 0, 0, 1]]),
    "LPS": np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "oblique": OBLIQUE,
}


def head(
    seed: int = 0, shape: tuple[int, int, int] = (13, 12, 9), low: float = 100, high: float = 900
) -> np.ndarray:
    """Return a noisy ball, float32, background 0."""
    random = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, side) for side in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = x**2 + y**2 + z**2 < 0.6
    return (inside * random.uniform(low, high, shape)).astype(np.float32)


def write_scan(
    path: Path,
    voxels: np.ndarray,
    affine: np.ndarray | None = None,
    dtype: Any = np.int16,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> Path:
    """Write a NIfTI whose stored numbers are ``voxels`` as ``dtype``; or an npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = voxels.astype(dtype)
    if path.suffix == ".npy":
        np.save(path, numbers)
        return path
    # Intensities are given to nibabel; it stores them divided by the slope: the numbers again.
    intensities = numbers if slope == 1 else numbers * slope + intercept
    image = nib.Nifti1Image(intensities, AFFINES["1 mm"] if affine is None else affine)
    image.header.set_data_dtype(dtype)
    image.header.set_slope_inter(slope, intercept)
    image.to_filename(path)
    return path


def stored(path: Path) -> np.ndarray:
    """Return the numbers in a file, before slope and intercept."""
    if path.suffix == ".npy":
        return np.load(path)
    return np.asanyarray(nib.nifti1.load(path).dataobj.get_unscaled())
