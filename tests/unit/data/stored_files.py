"""A small volume, and a NIfTI file of it with a header of its own."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

OBLIQUE = np.array(
    [[1.9, 0.3, 0.0, -20.0], [-0.3, 1.9, 0.1, 30.0], [0.0, -0.1, 2.5, -5.0], [0, 0, 0, 1.0]]
)


def values(shape: tuple[int, ...] = (3, 4, 5), dtype: Any = np.int16) -> np.ndarray:
    return (np.arange(np.prod(shape)) * 7 - 100).reshape(shape).astype(dtype)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=1)
    image.header["descrip"] = b"scanner"
    nib.save(image, path)
    return path
