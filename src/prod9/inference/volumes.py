"""Volumes as users of the Python API have them: paths, arrays, tensors, nibabel images."""

import os
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import SpatialImage
from torch import Tensor

from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume

PathLike: TypeAlias = str | os.PathLike[str]
VolumeLike: TypeAlias = str | os.PathLike[str] | np.ndarray | Tensor | SpatialImage
"""A volume of one channel: a path (see ``read_volume``), an array (D, H, W), or a nibabel image."""
Result: TypeAlias = np.ndarray | Nifti1Image


def stored_volume(volume: VolumeLike, name: str) -> StoredVolume:
    """Return a volume as it would be read from a file; ``name`` stands for its path in messages.

    An array is taken to have voxels of 1 mm and axes RAS+, as in an npy file.

    Raises:
        Prod9Error: the file cannot be read; not 3D, empty, not of real numbers, not finite.
    """
    if isinstance(volume, str | os.PathLike):
        return read_volume(Path(volume))
    if isinstance(volume, SpatialImage):
        affine, header = np.asarray(volume.affine, np.float64), cast(Any, volume.header)
        return StoredVolume.of(np.asanyarray(volume.dataobj), Path(name), affine, header)
    array = volume.detach().cpu().numpy() if isinstance(volume, Tensor) else volume
    return StoredVolume.of(array, Path(name))


def image_of(array: np.ndarray, affine: np.ndarray) -> Nifti1Image:
    """Return a volume (D, H, W) as an image, float32."""
    image = Nifti1Image(array.astype(np.float32, copy=False), affine)
    cast(Any, image.header).set_xyzt_units("mm")
    return image


def like(volume: VolumeLike, array: np.ndarray, affine: np.ndarray) -> Result:
    """Return a result as an array where ``volume`` is one (or a tensor), else as an image."""
    return array if isinstance(volume, np.ndarray | Tensor) else image_of(array, affine)
