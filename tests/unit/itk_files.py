"""The same volume in every format, written by SimpleITK; the reference is NIfTI."""

import locale
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

ANGLES = (0.3, -0.2, 0.15)
SPACING, ORIGIN = (0.9, 1.1, 2.5), (-20.5, 31.25, 7.0)


def direction() -> np.ndarray:
    """Return a rotation about all three axes, (3, 3)."""
    transform = sitk.Euler3DTransform()
    transform.SetRotation(*ANGLES)
    return np.array(transform.GetMatrix()).reshape(3, 3)


def image(shape: tuple[int, ...] = (5, 6, 7), dtype: Any = np.int16) -> Any:
    """Return a SimpleITK image (x, y, z) in which no two lines of voxels are the same."""
    values = np.random.default_rng(4).integers(0, 1500, shape).astype(dtype)
    made = sitk.GetImageFromArray(values.T, isVector=False)
    rest = len(shape) - 3
    made.SetSpacing((*SPACING, *[1.0] * rest))
    made.SetOrigin((*ORIGIN, *[0.0] * rest))
    turned = np.eye(len(shape))
    turned[:3, :3] = direction()
    made.SetDirection(turned.ravel())
    return made


@contextmanager
def same_locale() -> Generator[None]:
    """Restore the locale: SimpleITK leaves "C" when it writes DICOM; text files are ASCII then."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


def write_dicom(
    folder: Path,
    volume: Any,
    uid: str = "1.2.826.0.1.3680043.2.1125.1",
    tags: dict[str, str] | None = None,
    leave_out: tuple[int, ...] = (),
    tilt: float = 0,
    packed: bool = False,
) -> list[Path]:
    """Write the slices of a volume in files whose names are not in the order of the slices.

    Each is moved by ``tilt`` mm along the first axis against the one before. As SimpleITK's example
    DicomSeriesReadModifyWrite does it. Returns the files by slice.
    """
    folder.mkdir(exist_ok=True, parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(packed)
    axes = np.array(volume.GetDirection()).reshape(3, 3)
    count, written = volume.GetDepth(), []
    for index in range(count):
        plane = volume[:, :, index]
        place = volume.TransformIndexToPhysicalPoint((0, 0, index)) + tilt * index * axes[:, 0]
        plane.SetSpacing(volume.GetSpacing()[:2])
        values = {
            "0008|0060": "CT",
            "0008|0018": f"{uid}.{index}",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
            "0020|000e": uid,
            "0020|0011": uid.rpartition(".")[2],
            "0020|0013": str(index),
            "0020|0032": "\\".join(f"{value:.10g}" for value in place),
            "0020|0037": "\\".join(f"{value:.10f}" for value in (*axes[:, 0], *axes[:, 1])),
        }
        for key, value in (values | (tags or {})).items():
            plane.SetMetaData(key, value)
        path = folder / f"{uid.rpartition('.')[2]}-{index * 29 % 97:03}.dcm"
        if index not in leave_out:
            writer.SetFileName(str(path))
            with same_locale():
                writer.Execute(plane)
            written.append(path)
    return written
