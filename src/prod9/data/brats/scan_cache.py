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

from prod9.config.data import PreprocessingConfig
from prod9.data.brats.cases import BadCaseError, channel_order, read_case
from prod9.data.brats.layouts import MODALITIES, BadCase, Case
from prod9.data.geometry import Placement
from prod9.data.intensity import IntensityScale
from prod9.errors import Prod9Error
from prod9.files import atomic_write, hexdigest, write_text
from prod9.runtime.distributed import barrier, share_of, world_size

_DIGEST = re.compile("[0-9a-f]{64}")
_VERSION = 1
"""Of the preprocessing's arithmetic: raise it with any change, and old cache entries are unused."""


@dataclass(frozen=True)
class Scan:
    """One preprocessed scan."""

    name: str
    subject: str
    digest: str
    """SHA-256 over the files' contents and the preprocessing."""
    path: Path
    """float16 ``.npy``, (C, d, h, w) in [0, 1]: the box of all modalities."""
    shape: tuple[int, int, int]
    """Sides of the whole scan after resampling, RAS+."""
    box: tuple[int, int, int]
    """First voxel of the box in the whole scan."""
    box_shape: tuple[int, int, int]
    """(d, h, w) of the box."""
    spacing_mm: tuple[float, float, float]
    stored_shape: tuple[int, int, int]
    """As the files have it, before resampling and reorientation."""
    stored_spacing_mm: tuple[float, float, float]


def prepare(
    cases: Sequence[Case],
    preprocessing: PreprocessingConfig,
    cache: Path,
    on_case: Callable[[Case], None] = lambda case: None,
) -> tuple[tuple[Scan, ...], tuple[BadCase, ...]]:
    """Preprocess every case that is not in the cache yet; return all scans, and all bad cases.

    The processes of a distributed run share the cases, and get the same result.

    Args:
        cases: as :func:`prod9.data.brats.layouts.find_cases` found them.
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
    return scans, tuple(result for result in results if isinstance(result, BadCase))


def _prepare_case(case: Case, preprocessing: PreprocessingConfig, cache: Path) -> Scan:
    files = list(dict.fromkeys(case.files[modality] for modality in MODALITIES))
    settings = json.dumps([_VERSION, preprocessing.model_dump(mode="json"), channel_order(case)])
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
        # Cut short when the machine went down?
        if path.stat().st_size != meta.pop("bytes"):
            return None
        box_shape = np.load(path, mmap_mode="r", allow_pickle=False).shape[1:]
        places = {name: tuple(value) for name, value in meta.items()}
        return Scan(case.name, case.subject, digest, path, box_shape=box_shape, **places)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
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
    volumes = read_case(case)
    first = volumes[0]
    try:
        placement = Placement.of(
            first.array.shape, first.affine, preprocessing.spacing_mm, str(first.path)
        )
    except Prod9Error as error:
        raise BadCaseError(case, f"cannot be used: {str(error).removesuffix('.')}") from error
    whole = np.empty((len(MODALITIES), *placement.shape), np.float16)
    for index, (modality, volume) in enumerate(zip(MODALITIES, volumes, strict=True)):
        scale = IntensityScale.of(volume, preprocessing.percentiles)
        if scale.low == scale.high:
            raise BadCaseError(
                case,
                f"has a {modality} without contrast: {volume.path} has one foreground value, "
                f"{scale.low:g}; replace it",
            )
        whole[index] = placement.apply(scale.apply(volume.array))
    inside = np.nonzero(whole.any(0))
    low, high = [int(axis.min()) for axis in inside], [int(axis.max()) + 1 for axis in inside]
    boxed = whole[(slice(None), *map(slice, low, high))]
    meta = {
        "shape": list(placement.shape),
        "box": low,
        "spacing_mm": list(placement.spacing_mm),
        "stored_shape": list(placement.source_shape),
        "stored_spacing_mm": voxel_sizes(first.affine).tolist(),
    }
    return np.ascontiguousarray(boxed), meta
