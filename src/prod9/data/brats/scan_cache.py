"""Scans preprocessed once and kept on disk.

A scan is brought to RAS+ and the wanted spacing, its modalities are scaled to [0, 1] (background
0), cut to the box around the head and stored as float16 in a cache outside the data folder. A cache
entry is named by the content of its files and the preprocessing, so it is never stale; a second,
smaller record by path, size and time spares reading unchanged files again.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes

from prod9.config import PreprocessingConfig
from prod9.data.brats.cases import (
    MODALITIES,
    BadCase,
    BadCaseError,
    Case,
    describes_channels,
    read_case,
)
from prod9.data.brats.scans import Scan
from prod9.data.geometry import Placement
from prod9.data.intensity import IntensityScale
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error
from prod9.files import atomic_write, hexdigest, write_text
from prod9.runtime.distributed import barrier, share_of, world_size

_DIGEST = re.compile("[0-9a-f]{64}")
_VERSION = 1
"""Of the preprocessing's arithmetic: raise it with any change, and old cache entries are unused."""


@dataclass(frozen=True)
class Prepared:
    """What became of a cohort."""

    scans: tuple[Scan, ...]
    bad: tuple[BadCase, ...]


def prepare(
    cases: Sequence[Case],
    preprocessing: PreprocessingConfig,
    cache: Path,
    on_case: Callable[[Case], None] = lambda case: None,
) -> Prepared:
    """Preprocess every case that is not in the cache yet.

    The processes of a distributed run share the cases, and get the same result.

    Args:
        cases: as :func:`prod9.data.brats.cases.find_cases` found them.
        preprocessing: spacing and percentiles.
        cache: folder for the results.
        on_case: told of every case when it is done, by whichever process.

    Raises:
        Prod9Error: the cache cannot be written.
    """
    told: set[int] = set()

    def one(case: Case) -> Scan | BadCase:
        try:
            result = _prepare_case(case, preprocessing, cache)
        except BadCaseError as error:
            result = BadCase(case.name, error.cause)
        if id(case) not in told:
            told.add(id(case))
            on_case(case)
        return result

    # Unpacking gzip leaves the interpreter free; four cases at once are some 2 GiB at most.
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1) // world_size())) as pool:
        if world_size() > 1:
            list(pool.map(one, share_of(cases)))
            barrier()  # from here on everything is found in the cache, but for bad cases
        results = list(pool.map(one, cases))
    scans = tuple(result for result in results if isinstance(result, Scan))
    return Prepared(scans, tuple(result for result in results if isinstance(result, BadCase)))


def _prepare_case(case: Case, preprocessing: PreprocessingConfig, cache: Path) -> Scan:
    files = list(dict.fromkeys(case.files[modality] for modality in MODALITIES))
    order = describes_channels(case)
    settings = json.dumps([_VERSION, preprocessing.model_dump(mode="json"), order])
    with _readable(case):
        stats = [[str(path.resolve()), *_size_and_time(path)] for path in files]
    record = cache / "files" / f"{_sha256(settings, json.dumps(stats))}.txt"
    scan = _cached(case, cache, _noted(record))
    if scan is not None:
        return scan
    with _readable(case):
        contents = [hexdigest(path, "sha256") for path in files]
    digest = _sha256(settings, case.release, *contents)
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


def _noted(record: Path) -> str:
    """Return the digest in a record; an empty text where there is no whole one."""
    try:
        digest = record.read_text(encoding="ascii")
    except (OSError, ValueError):  # ValueError: torn, and no text
        return ""
    return digest if _DIGEST.fullmatch(digest) else ""


def _cached(case: Case, cache: Path, digest: str) -> Scan | None:
    """Return the entry ``digest`` if there is a whole one."""
    path = cache / f"{digest}.npy"
    try:
        meta: dict[str, Any] = json.loads((cache / f"{digest}.json").read_text(encoding="utf-8"))
        size = path.stat().st_size
        if size != meta.get("bytes", size):  # cut short when the machine went down
            return None
        return Scan(
            name=case.name,
            subject=case.subject,
            digest=digest,
            path=path,
            shape=tuple(meta["shape"]),
            box=tuple(meta["box"]),
            spacing_mm=tuple(meta["spacing_mm"]),
            stored_shape=tuple(meta["stored_shape"]),
            stored_spacing_mm=tuple(meta["stored_spacing_mm"]),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@contextmanager
def _readable(case: Case) -> Generator[None]:
    """Make a file that is gone, such as a link to nowhere, a fault of the case."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # RuntimeError: a link to itself
        raise BadCaseError(case, f"cannot be read ({error}); copy it again") from error


def _size_and_time(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _sha256(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _preprocess(
    case: Case, preprocessing: PreprocessingConfig
) -> tuple[np.ndarray, dict[str, Any]]:
    raw = read_case(case)
    try:
        placement = Placement.of(
            raw.arrays.shape[1:], raw.affine, preprocessing.spacing_mm, str(case.files["T1"])
        )
    except Prod9Error as error:
        raise BadCaseError(case, f"cannot be used: {str(error).removesuffix('.')}") from error
    whole = np.empty((len(MODALITIES), *placement.shape), np.float16)
    for index, modality in enumerate(MODALITIES):
        volume = StoredVolume(
            raw.arrays[index], raw.affine, np.dtype(np.float32), case.files[modality]
        )
        scale = IntensityScale.of(volume, preprocessing.percentiles)
        if scale.low == scale.high:
            raise BadCaseError(
                case,
                f"has a {modality} without contrast: {volume.path} has one foreground value, "
                f"{scale.low:g}; replace it",
            )
        whole[index] = placement.apply(scale.apply(volume.array))
    low, high = _box(np.asarray(whole.any(0)))
    boxed = whole[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    meta = {
        "shape": list(placement.shape),
        "box": low,
        "spacing_mm": list(placement.spacing_mm),
        "stored_shape": list(placement.source_shape),
        "stored_spacing_mm": voxel_sizes(raw.affine).tolist(),
    }
    return np.ascontiguousarray(boxed), meta


def _box(occupied: np.ndarray) -> tuple[list[int], list[int]]:
    """First and one past the last occupied index along each axis."""
    low: list[int] = []
    high: list[int] = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        found = np.flatnonzero(occupied.any(others))
        low.append(int(found[0]))
        high.append(int(found[-1]) + 1)
    return low, high
