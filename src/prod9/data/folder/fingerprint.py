"""All files of a described folder read once: grids, grey values, and what is wrong."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import aff2axcodes

from prod9.config.dataset import ChannelEntry, DatasetDescription, ScanEntry
from prod9.data.folder.read_part import read_part
from prod9.data.geometry import Placement, grid_difference, require_volume
from prod9.data.volume_files.stored_volume import StoredVolume, times
from prod9.errors import Prod9Error

BODY_HU = -500
"""Voxels of a CT above it are body, not air (Hounsfield units)."""
STEP_HU, STEPS = 10, 460
"""Width and number of bins from ``BODY_HU`` up; what is above them is metal."""
_FAT_HU = -50
_SPACINGS_MM = (0.01, 20.0)
_MOST_VALUES = 256


@dataclass(frozen=True)
class ChannelPrint:
    """The voxels of one channel of a scan."""

    low: float
    high: float
    percentiles: tuple[float, float]
    """The 0.5 and 99.5 of the foreground, which are the voxels that are not 0."""
    dtype: str
    """As stored, such as ``int16``."""
    whole: bool
    """Whether all voxels are whole numbers."""
    values: tuple[int, ...]
    """The different ones, where they are whole and few, else empty."""
    filled: bool
    """Whether most voxels of its faces are foreground (of a CT: body): it is a part of the body."""
    body: np.ndarray | None
    """int64 (``STEPS``): voxels above ``BODY_HU`` by their value, if the scan looks like a CT."""

    @classmethod
    def of(cls, volume: StoredVolume) -> "ChannelPrint":
        """Return what is to be known of a volume."""
        array = volume.array
        low, high = float(array.min()), float(array.max())
        foreground = array[array != 0]
        first, last = np.percentile(foreground, (0.5, 99.5)) if foreground.size else (0.0, 0.0)
        whole = bool((array == np.rint(array)).all())
        values: tuple[int, ...] = ()
        if whole and high - low < 2**20:
            different = np.unique(array)
            if different.size <= _MOST_VALUES:
                values = tuple(int(value) for value in different)
        body = None
        # Air is near -1000 HU, and nothing of an MR goes there; metal reaches 32767.
        if -5000 <= low <= BODY_HU and 100 <= high <= 32767:
            above = array[array > BODY_HU]
            steps = np.minimum((above - BODY_HU) // STEP_HU, STEPS - 1)
            body = np.bincount(steps.astype(np.int64), minlength=STEPS)
        limits = float(first), float(last)
        ground = 0 if body is None else BODY_HU
        faces = [array.take((0, -1), axis) > ground for axis in range(3)]
        filled = bool(np.mean([face.mean() for face in faces]) > 0.5)
        return cls(low, high, limits, volume.dtype.name, whole, values, filled, body)


@dataclass(frozen=True)
class ScanPrint:
    """One scan that can be used."""

    placement: Placement
    """Its own grid, and the same voxels along RAS axes at its own spacing."""
    channels: Mapping[str, ChannelPrint]

    @property
    def orientation(self) -> str:
        """Where the scan's own axes point to, such as ``LPS``."""
        return "".join(map(str, aff2axcodes(self.placement.source_affine)))


@dataclass(frozen=True)
class Fingerprint:
    """A folder whose files have all been read."""

    scans: Mapping[str, ScanPrint]
    """Those that can be used, by name."""
    bad: Mapping[str, str]
    """Those that cannot, by name: a sentence that names case and file."""
    mixed: tuple[str, ...]
    """What is wrong with several scans together, a sentence each."""

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong."""
        return (*self.mixed, *self.bad.values())


def take_fingerprint(
    description: DatasetDescription,
    on_scan: Callable[[int, int], None] = lambda done, count: None,
) -> Fingerprint:
    """Read every file once.

    ``on_scan`` is called after each scan with the number of scans read so far, and of all. A scan
    that cannot be used is a problem in the result, not an error.
    """
    scans: dict[str, ScanPrint] = {}
    bad: dict[str, str] = {}

    def read(item: tuple[str, ScanEntry]) -> ScanPrint | Prod9Error:
        try:
            return _read(description, item[1])
        except (Prod9Error, OSError, RuntimeError) as error:  # RuntimeError: a link to itself
            return Prod9Error(str(error))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(read, description.scans.items())
        for done, (name, each) in enumerate(zip(description.scans, found, strict=True), 1):
            if isinstance(each, ScanPrint):
                scans[name] = each
            else:
                bad[name] = f"case {name} cannot be used: {str(each).removesuffix('.')}."
            on_scan(done, len(description.scans))
    return Fingerprint(scans, bad, tuple(_mixed(description, scans)))


def _read(description: DatasetDescription, scan: ScanEntry) -> ScanPrint:
    """Read the channels of a scan, which must fit together."""
    first: StoredVolume | None = None
    channels: dict[str, ChannelPrint] = {}
    for name, entry in description.channels.items():
        volume = read_part(description.root, scan.files[name])
        if first is None:
            first = volume
            _check_grid(volume)
        if difference := grid_difference(first, volume):
            raise Prod9Error(
                f"{first.path} and {volume.path} are on two grids, with {difference}; resample one "
                "onto the other."
            )
        channels[name] = ChannelPrint.of(volume)
        _check_voxels(channels[name], entry, volume)
    assert first is not None  # a description has at least one channel
    return ScanPrint(Placement.of(first.array.shape, first.affine, None), channels)


def _check_grid(volume: StoredVolume) -> None:
    require_volume(volume.affine, str(volume.path))
    shape, path = volume.array.shape, volume.path
    if shape[2] in (3, 4) and volume.dtype == np.uint8 and min(shape[:2]) > 16:
        raise Prod9Error(
            f"{path} looks like a colour picture ({times(shape)} bytes); give volumes of grey "
            "values."
        )
    if min(shape) == 1:
        raise Prod9Error(
            f"{path} is a single slice ({times(shape)} voxels); join the slices into a volume."
        )
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    low, high = _SPACINGS_MM
    if spacing.min() < low or spacing.max() > high:
        raise Prod9Error(
            f"{path} has voxels of {times(spacing.tolist())} mm, which no scanner has; correct its "
            "header (are they micrometres or metres?)."
        )


def _check_voxels(channel: ChannelPrint, entry: ChannelEntry, volume: StoredVolume) -> None:
    if entry.kind == "labels":
        if not channel.whole:
            raise Prod9Error(
                f"{volume.path} is a label map with fractions; resample labels with nearest "
                "neighbours, or make its channel kind: intensity."
            )
    elif channel.low == channel.high:
        raise Prod9Error(f"{volume.path} is empty, all its voxels are {channel.low:g}; replace it.")


def _mixed(description: DatasetDescription, scans: Mapping[str, ScanPrint]) -> list[str]:
    """Return a sentence for each channel in which CT and something else are mixed."""
    problems: list[str] = []
    for name in description.intensity_channels:
        ct = [scan for scan, each in scans.items() if each.channels[name].body is not None]
        # A CT cut out of the body has no air, but still fat, at -100 HU.
        rest = [scan for scan, each in scans.items() if each.channels[name].low > _FAT_HU]
        few, what = (ct, "CT") if len(ct) <= len(rest) else (rest, "no CT")
        if few:
            first = description.root / description.scans[few[0]].files[name]
            problems.append(
                f"the channel {name} mixes CT and other scans: {len(few)} of {len(scans)} cases "
                f"look like {what}, the first is {few[0]} ({first}); make two data sets of them."
            )
    return problems
