"""Scans preprocessed once and kept on disk.

A scan is brought to RAS+ and the wanted spacing, its modalities are scaled to [0, 1] (background
0), cut to the box around the head and stored as float16 in a cache outside the data folder. A cache
entry is named by the content of its files and the preprocessing, so it is never out of date; a
record by path, size and time saves hashing unchanged files again.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prod9.config.data import PreprocessingConfig
from prod9.data.brats.cases import channel_order, faults_of, read_case
from prod9.data.brats.layouts import MODALITIES, BadCase, Case
from prod9.data.geometry import Placement
from prod9.data.intensity import IntensityScale
from prod9.files import atomic_write, hexdigest, write_text
from prod9.runtime.distributed import barrier, share_of, world_size

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


def prepare(
    cases: Sequence[Case],
    preprocessing: PreprocessingConfig,
    cache: Path,
    on_case: Callable[[], object] = lambda: None,
) -> tuple[tuple[Scan, ...], tuple[BadCase, ...]]:
    """Preprocess every case that is not in the cache yet; return all scans, and all bad cases.

    The processes of a distributed run share the cases, and get the same result. ``on_case`` is
    called once for every case, when it is done.
    """

    def one(case: Case) -> Scan | BadCase:
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


def _prepare_case(case: Case, preprocessing: PreprocessingConfig, cache: Path) -> Scan:
    files = list(dict.fromkeys(case.files[modality] for modality in MODALITIES))
    with faults_of(case):
        channels = channel_order(files[0]) if case.release == "msd" else ()
        stats = [(path, path.stat()) for path in files]
    settings = json.dumps([_VERSION, preprocessing.model_dump(mode="json"), channels])
    places = [[str(path.resolve()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    record = cache / "files" / f"{_sha256(settings, json.dumps(places))}.txt"
    noted = record.read_text("ascii", "replace") if record.is_file() else ""
    scan = _cached(case, cache, noted)
    if scan is not None:
        return scan
    with faults_of(case):
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


def _cached(case: Case, cache: Path, digest: str) -> Scan | None:
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
    case: Case, preprocessing: PreprocessingConfig
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the box around the head, float16 (C, d, h, w), and where it lies."""
    volumes = read_case(case)
    first = volumes[0]
    with faults_of(case):
        placement = Placement.of(
            first.array.shape, first.affine, preprocessing.spacing_mm, str(first.path)
        )
    whole = np.empty((len(MODALITIES), *placement.shape), np.float16)
    for index, (modality, volume) in enumerate(zip(MODALITIES, volumes, strict=True)):
        scale = IntensityScale.of(volume, preprocessing.percentiles)
        if scale.low == scale.high:
            raise BadCase(
                case.name,
                f"has a {modality} without contrast: {volume.path} has one foreground value, "
                f"{scale.low:g}; replace it",
            )
        whole[index] = placement.apply(scale.apply(volume.array))
    inside = np.nonzero(whole.any(0))
    low, high = [int(axis.min()) for axis in inside], [int(axis.max()) + 1 for axis in inside]
    boxed = whole[(slice(None), *map(slice, low, high))]
    return np.ascontiguousarray(boxed), {"shape": list(placement.shape), "box": low}
