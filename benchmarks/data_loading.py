"""From files to batches: an epoch once all is open, and the time until the first batch."""

import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.contender import Case, Contender, Work
from benchmarks.data_files import MEDMNIST, files

CONFIGS = {
    "npz": "maskgit/medmnist3d/stage1/base.yaml",
    "nifti": "maskgit/brats/stage1/base.yaml",
    "tokens": "maskgit/medmnist3d/stage2/base.yaml",
}
CACHE = "MONAI CacheDataset"
WORKERS = {CACHE: 0, f"{CACHE}, 2 loader processes": 2}
"""prod9 loads in the training process: its default, and the faster way for data this small."""

_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Folders that end with the process."""


def batch_size(kind: str) -> int:
    """Return the batch of the shipped configuration."""
    from prod9.config.load import load_stage1, load_stage2

    load = load_stage2 if kind == "tokens" else load_stage1
    return load(Path(CONFIGS[kind])).data.batch_size


def open_npz(count: int, side: int, seed: int) -> Iterable[Any]:
    """Open prod9's batches of an npz."""
    from prod9.config import MedMNISTDataConfig
    from prod9.data import medmnist
    from prod9.data.crops import volume_loader

    root = files("npz", count=count, side=side)
    data = MedMNISTDataConfig(
        dataset_name=MEDMNIST,
        size=28 if side == 28 else 64,
        root=root,
        download=False,
        batch_size=batch_size("npz"),
    )
    volumes = medmnist.load(data, "train")
    return volume_loader(volumes, data, volumes.shape, train=True, seed=seed)


def open_npz_monai(count: int, side: int, workers: int) -> Iterable[Any]:
    """Open MONAI's batches of an npz."""
    from benchmarks.rivals.monai_data import npz_loader
    from prod9.data.medmnist_table import TABLE

    path = TABLE[MEDMNIST].file(files("npz", count=count, side=side), side)
    return npz_loader(path, batch_size("npz"), workers)


def open_nifti(scans: int, voxel_mm: float, seed: int, cache: Path) -> Iterable[Any]:
    """Open prod9's crops of all scans of a BraTS folder, preprocessed into ``cache``."""
    from prod9.config import BraTSDataConfig, PreprocessingConfig
    from prod9.data.brats.cases import prepare
    from prod9.data.brats.dataset import BraTSDataset
    from prod9.data.brats.layouts import find_cases
    from prod9.data.crops import volume_loader

    folder = files("scans", cases=scans, voxel_mm=voxel_mm)
    preprocessing = PreprocessingConfig(spacing_mm=(voxel_mm,) * 3)
    data = BraTSDataConfig(
        dataset_name="brats", data_dir=folder, cache_dir=cache, batch_size=batch_size("nifti")
    )
    scans, _ = prepare(find_cases(folder).cases, preprocessing, cache)
    cohort = BraTSDataset("cohort", scans, scans[0].shape, preprocessing)
    return volume_loader(cohort, data, _roi(), train=True, seed=seed)


def open_nifti_monai(scans: int, voxel_mm: float, workers: int) -> Iterable[Any]:
    """Open MONAI's crops of the same scans."""
    from benchmarks.rivals.monai_data import scan_loader
    from prod9.config import PreprocessingConfig
    from prod9.data.brats.layouts import find_cases

    cases = find_cases(files("scans", cases=scans, voxel_mm=voxel_mm)).cases
    return scan_loader(cases, PreprocessingConfig(), _roi(), batch_size("nifti"), workers)


def _roi() -> tuple[int, int, int]:
    from prod9.config.load import load_stage1

    return load_stage1(Path(CONFIGS["nifti"])).sliding_window.roi_size


def open_tokens(count: int, side: int, seed: int, npy: bool = True) -> Iterable[Any]:
    """Open prod9's batches of a token store (its digests are checked each time)."""
    import numpy as np

    from prod9.config.data import SourceConfig
    from prod9.data.array_dataset import ArrayDataset
    from prod9.data.batches import batches_of
    from prod9.data.tokens.crops import TokenCrops
    from prod9.data.tokens.store import reopen

    store = reopen(files("tokens", count=count, side=side, npy=npy) / "store")
    grid = store.tokens.shape[1:]
    config = SourceConfig(dataset_name="tokens", batch_size=batch_size("tokens"))
    data = ArrayDataset("tokens", np.empty((len(store), 1, *grid), np.uint8))
    crops = TokenCrops(store, data, config, stride=1, window=grid, train=True, seed=seed)
    return batches_of(crops, config, train=True, seed=seed)


def open_tokens_monai(count: int, side: int, workers: int) -> Iterable[Any]:
    """Open MONAI's batches of the same tokens, a file a volume."""
    from benchmarks.rivals.monai_data import token_loader

    return token_loader(
        files("tokens", count=count, side=side, npy=True), batch_size("tokens"), workers
    )


OPEN: dict[str, tuple[Callable[..., Iterable[Any]], Callable[..., Iterable[Any]]]] = {
    "npz": (open_npz, open_npz_monai),
    "nifti": (open_nifti, open_nifti_monai),
    "tokens": (open_tokens, open_tokens_monai),
}


def seen(batches: Iterable[Any], passes: int) -> int:
    """Go through all batches ``passes`` times; return how many volumes came."""
    total = 0
    for _ in range(passes):
        for batch in batches:
            volumes = batch["image"] if isinstance(batch, dict) else batch[0]
            total += len(volumes)
    return total


def epochs(opener: Callable[..., Iterable[Any]], passes: int) -> Work:
    """Open once; a repeat is ``passes`` epochs."""
    batches = opener()
    return Work(lambda: seen(batches, passes))


def first_batch(opener: Callable[..., Iterable[Any]]) -> Work:
    """A repeat opens everything anew and takes one batch."""
    return Work(lambda: next(iter(opener())))


def prod9(kind: str, what: str, passes: int, sizes: dict[str, Any], seed: int) -> Work:
    """``what``: ``epoch``, ``first_batch``, or ``first_batch_ever``, without prod9's own cache."""
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    own = OPEN[kind][0]
    _KEPT.append(folder := tempfile.TemporaryDirectory())

    def opener() -> Iterable[Any]:
        if kind != "nifti":
            return own(**sizes, seed=seed)
        ever = what == "first_batch_ever"
        with tempfile.TemporaryDirectory() if ever else nullcontext(folder.name) as cache:
            batches = own(**sizes, seed=seed, cache=Path(cache))
            # Before the folder goes, the batch that is asked for must be read.
            return [next(iter(batches))] if ever else batches

    _write(kind, sizes)
    if what == "epoch":
        return epochs(opener, passes)
    if what == "first_batch" and kind == "nifti":
        opener()  # fills the cache: what is measured are all later starts
    return first_batch(opener)


def monai(
    kind: str, what: str, passes: int, sizes: dict[str, Any], workers: int, seed: int
) -> Work:
    """MONAI fills its cache, in memory, at every start."""
    from monai.utils import set_determinism

    set_determinism(seed)
    _write(kind, sizes)

    def opener() -> Iterable[Any]:
        return OPEN[kind][1](**sizes, workers=workers)

    return epochs(opener, passes) if what == "epoch" else first_batch(opener)


def _write(kind: str, sizes: dict[str, Any]) -> None:
    """Write the files now, outside the clock."""
    if kind == "nifti":
        files("scans", cases=sizes["scans"], voxel_mm=sizes["voxel_mm"])
    else:
        more = {"npy": True} if kind == "tokens" else {}
        files(kind, **sizes, **more)


_SETS: dict[str, tuple[str, dict[str, Any], int, int, str]] = {
    "npz_28": ("npz", {"count": 960, "side": 28}, 960, 4, "28^3 volumes of a compressed npz"),
    "npz_64": ("npz", {"count": 240, "side": 64}, 240, 2, "64^3 volumes of a compressed npz"),
    "nifti": ("nifti", {"scans": 6, "voxel_mm": 1}, 24, 4, "64^3 crops of 1 mm NIfTI scans"),
    "tokens": ("tokens", {"count": 1920, "side": 8}, 1920, 4, "grids of 8^3 tokens"),
}
"""Kind, sizes, volumes an epoch (whole batches, so that nobody drops any), epochs a repeat."""
_WHAT = {
    "epoch": "Epochs once all is open",
    "first_batch": "Open, until the first batch is there",
    "first_batch_ever": "Open a folder never seen before, until the first batch is there",
}


def case(name: str, what: str, seed: int = 0) -> Case:
    """Return a case of a row of the table; ``what`` as in :func:`prod9`."""
    kind, sizes, volumes, passes, text = _SETS[name]
    own = {"kind": kind, "what": what, "passes": passes, "sizes": sizes, "seed": seed}
    epoch = what == "epoch"
    # Starting processes only delays a first batch.
    rivals = [
        Contender(rival, monai, {**own, "workers": workers})
        for rival, workers in WORKERS.items()
        if epoch or not workers
    ]
    batch = batch_size(kind)
    return Case(
        name=f"data_{name}" if epoch else f"data_{name}_{what}",
        title=f"{_WHAT[what]}: {volumes} {text}, batches of {batch}, no augmentation"
        + (f"; a repeat is {passes} epochs" if epoch else ""),
        contenders=(Contender("prod9", prod9, own), *rivals),
        repeats=7 if epoch else 3,
        warmup=1,
        per_repeat={"volumes": passes * volumes} if epoch else {"volumes": batch},
        sizes={**sizes, "volumes": volumes, "batch": batch},
        seed=seed,
    )


def cases() -> list[Case]:
    """An epoch and the first batch of each kind of data."""
    found = [case(name, what) for name in _SETS for what in ("epoch", "first_batch")]
    return [*found, case("nifti", "first_batch_ever")]
