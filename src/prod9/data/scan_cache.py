"""Scans preprocessed once and kept on disk.

A scan is brought to RAS+ and the wanted spacing, its channels are scaled to [0, 1] (background 0),
cut to the box around what is not background and stored as float16 in a cache outside the data
folder. A cache entry is named by the content of its files and the preprocessing, so it is never out
of date; a record by path, size and time saves hashing unchanged files again.
"""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prod9.config.data import PreprocessingConfig
from prod9.data.geometry import Placement, grid_difference, require_volume
from prod9.data.intensity import IntensityScale
from prod9.data.label_maps import label_indices
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error
from prod9.files import atomic_write, hexdigest, write_text
from prod9.runtime.distributed import barrier, share_of, world_size

_VERSION = 1
"""Of the preprocessing's arithmetic: raise it with any change, and old cache entries are unused."""


@dataclass(unsafe_hash=True)
class BadCase(Prod9Error):
    """A scan that cannot be used."""

    name: str
    cause: str
    """A clause that goes on from the name, such as ``has no T2 (no file ending in ...)``."""

    def __str__(self) -> str:
        return f"case {self.name} {self.cause}."


class ScanSource(ABC):
    """The files of one scan, and how they become its channels."""

    name: str
    subject: str
    channels: Sequence[str]

    @property
    @abstractmethod
    def paths(self) -> Sequence[Path]:
        """Every file whose content decides the voxels."""

    @property
    @abstractmethod
    def layout(self) -> str:
        """What decides how the files are read, beside their content."""

    @abstractmethod
    def read(self) -> list[StoredVolume]:
        """Read the channels, all on one grid."""

    @property
    def windows(self) -> Sequence[tuple[float, float] | None]:
        """The fixed range of each channel; None for percentiles of the foreground."""
        return [None] * len(self.channels)

    @property
    def labels(self) -> Mapping[str, tuple[int, ...]]:
        """Values of each channel of labels."""
        return {}


@contextmanager
def faults_of(name: str) -> Generator[None]:
    """Raise an error of the block, which reads the scan ``name``, as a :class:`BadCase`."""
    try:
        yield
    except BadCase:
        raise
    except (Prod9Error, OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        cause = f"cannot be used: {str(error).removesuffix('.')}"
        raise BadCase(name, cause) from error


def require_one_grid(
    name: str,
    channels: Sequence[str],
    volumes: Sequence[StoredVolume],
    may_be_empty: Container[str] = (),
) -> None:
    """Refuse channels that lie on different grids or hold one value only.

    Those that are named in ``may_be_empty`` (labels) may hold one value.

    Raises:
        BadCase: of the scan ``name``.
    """
    first = volumes[0]
    for channel, volume in zip(channels, volumes, strict=True):
        if difference := grid_difference(first, volume):
            raise BadCase(
                name,
                f"has two grids: {channels[0]} ({first.path}) and {channel} ({volume.path}) have "
                f"{difference}; resample one onto the other",
            )
        value = volume.array.flat[0]
        if channel not in may_be_empty and (volume.array == value).all():
            raise BadCase(
                name,
                f"has an empty {channel}: all voxels of {volume.path} are {value:g}; replace it",
            )
    require_volume(first.affine, str(first.path))


@dataclass(frozen=True)
class Scan:
    """One preprocessed scan."""

    name: str
    subject: str
    digest: str
    """SHA-256 over the files' contents and the preprocessing."""
    path: Path
    """float16 ``.npy``, (C, d, h, w) in [0, 1]: the box of all modalities. Of labels: indices into
    their values."""
    shape: tuple[int, int, int]
    """Sides of the whole scan after resampling, RAS+."""
    box: tuple[int, int, int]
    """First voxel of the box in the whole scan."""
    box_shape: tuple[int, int, int]
    """(d, h, w) of the box."""


def prepare(
    cases: Sequence[ScanSource],
    preprocessing: PreprocessingConfig,
    cache: Path,
    on_case: Callable[[], object] = lambda: None,
) -> tuple[tuple[Scan, ...], tuple[BadCase, ...]]:
    """Preprocess every scan that is not in the cache yet; return all scans, and all bad ones.

    The processes of a distributed run share the scans, and get the same result. ``on_case`` is
    called once for every scan, when it is done.
    """

    def one(case: ScanSource) -> Scan | BadCase:
        try:
            return _prepare_case(case, preprocessing, cache)
        except BadCase as bad:
            return bad
        finally:
            on_case()

    own = share_of(cases)
    # Unpacking gzip leaves the interpreter free; four cases at once are some 2 GiB at most.
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1) // world_size())) as pool:
        results = dict(zip([case.name for case in own], pool.map(one, own), strict=True))
        barrier()  # from here on the others' are found in the cache, but for bad cases
        others = [case for case in cases if case.name not in results]
        results |= zip([case.name for case in others], pool.map(one, others), strict=True)
    found = [results[case.name] for case in cases]
    return (
        tuple(result for result in found if isinstance(result, Scan)),
        tuple(result for result in found if isinstance(result, BadCase)),
    )


def _prepare_case(case: ScanSource, preprocessing: PreprocessingConfig, cache: Path) -> Scan:
    with faults_of(case.name):
        files, layout = case.paths, case.layout
        stats = [(path, path.stat()) for path in files]
    settings = json.dumps([_VERSION, preprocessing.model_dump(mode="json"), layout])
    places = [[str(path.resolve()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    record = cache / "files" / f"{_sha256(settings, json.dumps(places))}.txt"
    noted = record.read_text("ascii", "replace") if record.is_file() else ""
    scan = _cached(case, cache, noted)
    if scan is not None:
        return scan
    with faults_of(case.name):
        contents = [hexdigest(path, "sha256") for path in files]
    digest = _sha256(settings, *contents)
    if _cached(case, cache, digest) is None:
        boxed, meta = _preprocess(case, preprocessing)
        with atomic_write(cache / f"{digest}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, boxed, allow_pickle=False)
            meta["bytes"] = file.tell()
        write_text(cache / f"{digest}.json", json.dumps(meta))  # last: with one, an entry is whole
    write_text(record, digest)
    scan = _cached(case, cache, digest)
    assert scan is not None
    return scan


def _cached(case: ScanSource, cache: Path, digest: str) -> Scan | None:
    """Return the entry ``digest`` if there is a whole one."""
    path = cache / f"{digest}.npy"
    try:
        meta: dict[str, Any] = json.loads((cache / f"{digest}.json").read_text(encoding="utf-8"))
        if path.stat().st_size != meta["bytes"]:  # cut short when the machine went down
            return None
        box_shape = np.load(path, mmap_mode="r", allow_pickle=False).shape[1:]
        shape, box = tuple(meta["shape"]), tuple(meta["box"])
        return Scan(case.name, case.subject, digest, path, shape, box, box_shape)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _preprocess(
    case: ScanSource, preprocessing: PreprocessingConfig
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the box around the foreground, float16 (C, d, h, w), and where it lies."""
    with faults_of(case.name):
        volumes = case.read()
        first = volumes[0]
        placement = Placement.of(
            first.array.shape, first.affine, preprocessing.spacing_mm, str(first.path)
        )
    whole = np.empty((len(volumes), *placement.shape), np.float16)
    named = zip(case.channels, volumes, case.windows, strict=True)
    for index, (channel, volume, window) in enumerate(named):
        if channel in case.labels:
            with faults_of(case.name):
                whole[index] = placement.nearest(label_indices(volume, case.labels[channel]))
            continue
        scale = IntensityScale.of(volume, preprocessing.percentiles)
        if window is not None:
            scale = IntensityScale(*window)
        elif scale.low == scale.high:
            raise BadCase(
                case.name,
                f"has a {channel} without contrast: {volume.path} has one foreground value, "
                f"{scale.low:g}; replace it",
            )
        whole[index] = placement.apply(scale.apply(volume.array))
    inside = np.nonzero(whole.any(0))
    low, high = [int(axis.min()) for axis in inside], [int(axis.max()) + 1 for axis in inside]
    boxed = whole[(slice(None), *map(slice, low, high))]
    return np.ascontiguousarray(boxed), {"shape": list(placement.shape), "box": low}
