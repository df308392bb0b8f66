"""Folders of DICOM slices: which series they hold, and the volume that a series makes."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prod9.data.volume_files.itk import (
    Header,
    head_of,
    read_header,
    read_pixels,
    require_room,
    simpleitk,
    tag_of,
)
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error

DICOM_SUFFIXES = (".dcm", ".ima")
_SERIES, _NUMBER, _DESCRIPTION = "0020|000e", "0020|0011", "0008|103e"
_POSITION, _PIXEL_SPACING = "0020|0032", "0028|0030"
_TOLERANCE = 0.02
"""Positions are rounded: a slice may lie this share of the distance between slices off."""
_STRAIGHT = 0.9999
"""Cosine of the angle between the slices' normal and the line through them: up to 0.8 degrees."""
# The class of what is stored, where it has no voxels: presentation states, registrations, reports,
# PDF, plans; DICOMDIR.
_NO_IMAGE = re.compile(
    rb"\x02\x00\x02\x00UI..1\.2\.840\.10008\."
    rb"(5\.1\.4\.1\.1\.(11|66(?!\.4)|88|104|481(?!\.[12]\b))\b|1\.3\.10\b)",
    re.DOTALL,
)


def read_series(folder: Path, part: str = "") -> StoredVolume:
    """Read a DICOM series, after rescale slope and intercept.

    Raises:
        Prod9Error: a file of the folder cannot be read; no series, several without ``part``, fewer
            than three slices, colour, several frames in one file; slices that are missing, unevenly
            spaced, tilted or of several grids.
    """
    found: dict[str, list[Header]] = {}
    for path in dicom_files(folder):
        header = read_header(path, "GDCM")
        found.setdefault(tag_of(header.reader, _SERIES), []).append(header)
    if not found:
        raise Prod9Error(f"{folder} holds no DICOM slices; give a volume's file or its folder.")
    uid = part or (next(iter(found)) if len(found) == 1 else "")
    if uid not in found:
        raise Prod9Error(
            f"{folder} holds {len(found)} DICOM series and none with the SeriesInstanceUID "
            f"'{part}'; choose one of: {', '.join(sorted(found)[:9])}."
        )
    slices, affine = _in_order(folder, found[uid])
    first, shape = slices[0], (*slices[0].shape[:2], len(slices))
    require_room(shape, first.kind, folder)
    # Slices may be rescaled each by its own slope; integers are kept where all are of one kind.
    exact = len({each.kind for each in slices}) == 1 and "integer" in first.kind
    planes = (read_pixels(each)[..., 0] for each in slices)
    plane = next(planes)
    array = np.empty(shape, plane.dtype if exact else np.float32, order="F")
    array[..., 0] = plane
    for index, plane in enumerate(planes, 1):
        array[..., index] = plane
    return StoredVolume.of(array, folder, affine)


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files with images that lie in a folder itself, sorted."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise Prod9Error(f"{folder} cannot be listed ({error}); make it readable.") from error
    return [path for path in entries if not path.name.startswith(".") and is_dicom(path)]


def is_dicom(path: Path) -> bool:
    """Return whether a path is a DICOM file with an image, by its name and first bytes."""
    suffix = path.suffix.lower()
    # Files are often named by a UID, which ends in digits.
    named = suffix in DICOM_SUFFIXES
    if not (named or suffix == "" or suffix[1:].isdigit()) or not path.is_file():
        return False
    head = head_of(path)
    return (named or head[128:132] == b"DICM") and not _NO_IMAGE.search(head)


def series_of(folder: Path, files: Sequence[Path]) -> list[tuple[str, str]]:
    """Return SeriesInstanceUID and a name for each series among the DICOM ``files`` of a folder.

    The name is made of the series' number and description. Both are empty for a single series.
    """
    sitk, there = simpleitk(folder), set(files)
    found: dict[str, Path] = {}
    for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)):
        paths = map(Path, sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid))
        if own := [path for path in paths if path in there]:
            found[uid] = own[0]
    if len(found) < 2:
        return [("", "")]
    names: dict[str, str] = {}
    for uid, path in sorted(found.items()):
        reader = read_header(path, "GDCM").reader
        words = [text for tag in (_NUMBER, _DESCRIPTION) if (text := tag_of(reader, tag))]
        name = re.sub(r"[^\w.-]+", "_", "-".join(words)) or uid
        names[uid] = name if name not in names.values() else f"{name}-{uid.rpartition('.')[2]}"
    return list(names.items())


def _in_order(folder: Path, slices: list[Header]) -> tuple[list[Header], np.ndarray]:
    """Return a series' slices by their position, and the affine of the volume that they make."""
    first = slices[0]
    for each in slices:
        if each.shape[2] != 1:
            raise Prod9Error(
                f"{each.path} holds {each.shape[2]} frames in one DICOM file, which prod9 does not "
                "read; convert it to .nii.gz first, for instance with dcm2niix."
            )
        for tag, name in ((_POSITION, "ImagePositionPatient"), (_PIXEL_SPACING, "PixelSpacing")):
            if not tag_of(each.reader, tag):
                raise Prod9Error(f"{each.path} has no {name}; leave its series out.")
        turned = not np.allclose(each.affine[:3, :2], first.affine[:3, :2], rtol=1e-3, atol=1e-3)
        if turned or each.shape != first.shape:
            raise Prod9Error(
                f"{first.path} and {each.path} are of one DICOM series but differ in size, spacing "
                "or direction; leave the series out, or split it."
            )
    if len(slices) < 3:
        raise Prod9Error(
            f"{folder} holds a DICOM series of fewer than three slices ({slices[0].path.name}), "
            "which is no volume; leave it out."
        )
    # SimpleITK gives the slices' normal, of any length, as the third axis.
    normal = first.affine[:3, 2] / np.linalg.norm(first.affine[:3, 2])
    slices = sorted(slices, key=lambda each: float(normal @ each.affine[:3, 3]))
    places = np.stack([each.affine[:3, 3] for each in slices])
    step = (places[-1] - places[0]) / (len(slices) - 1)
    length = float(np.linalg.norm(step))
    off = np.abs(places - places[0] - np.arange(len(slices))[:, None] * step).max(1)
    if length == 0 or off.max() > _TOLERANCE * length:
        gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
        raise Prod9Error(
            f"{folder} holds a DICOM series ({slices[0].path.name} and others) with distances of "
            f"{gaps.min():.4g} to {gaps.max():.4g} mm from slice to slice; slices are missing or "
            "there twice: complete the series, or leave it out."
        )
    if abs(float(normal @ step)) < _STRAIGHT * length:
        raise Prod9Error(
            f"{folder} holds a DICOM series ({slices[0].path.name} and others) of a tilted gantry; "
            "straighten it first, for instance with dcm2niix."
        )
    affine = slices[0].affine.copy()
    affine[:3, 2] = step
    return slices, affine
