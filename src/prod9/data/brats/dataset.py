"""A BraTS folder as data set: found, checked, preprocessed, split by subject."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from rich.progress import Progress

from prod9.config.data import BraTSSourceConfig, PreprocessingConfig, SourceConfig
from prod9.data.brats.layouts import MODALITIES, BadCase, find_cases, subject_of
from prod9.data.brats.scan_cache import Scan, prepare
from prod9.data.dataset import Channel, Dataset, Outline, Sides
from prod9.data.splits import SPLITS, Split, SubjectSplit, open_split, split_counts
from prod9.data.volume_files.stored_volume import times
from prod9.errors import Prod9Error
from prod9.losses.weights import cache_dir
from prod9.runtime.console import say
from prod9.runtime.distributed import main_first

_GRID_MM = (240, 240, 155)
"""The grid of BraTS releases, voxels of 1 mm."""


class BraTSDataset(Dataset):
    """Preprocessed scans, each in the middle of one common grid."""

    channels = tuple(Channel(name) for name in MODALITIES)
    intensity = "percentiles of each volume's foreground, as the scans were preprocessed"
    # T1 is there most often, then T2, then T1ce.
    translation_order = (0, 2, 1, 3)

    def __init__(
        self, name: str, scans: Sequence[Scan], shape: Sides, preprocessing: PreprocessingConfig
    ) -> None:
        self.name, self.scans, self.shape = name, tuple(scans), shape
        self.preprocessing, self.spacing_mm = preprocessing, preprocessing.spacing_mm
        self.names = tuple(scan.name for scan in scans)
        self.subjects = tuple(scan.subject for scan in scans)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the scans and the grid."""
        parts = [str(self.shape), *(f"{scan.name} {scan.digest}" for scan in self.scans)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def box(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and one past the last voxel of the box of all channels, (3,) each."""
        scan = self.scans[item]
        margin = (np.array(self.shape) - np.array(scan.shape)) // 2
        low = np.array(scan.box) + margin
        return low, low + np.array(scan.box_shape)

    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return voxels of one channel, float32 (*sides) in [0, 1], 0 outside the box."""
        stored = np.load(self.scans[item].path, mmap_mode="r", allow_pickle=False)[channel]
        low, _ = self.box(item)
        begin = np.array(start) - low  # in the box
        first = np.clip(begin, 0, stored.shape)
        last = np.clip(begin + np.array(sides), 0, stored.shape)
        result = np.zeros(tuple(sides), np.float32)
        if (first < last).all():
            target = (slice(a - b, z - b) for a, z, b in zip(first, last, begin, strict=True))
            result[tuple(target)] = stored[tuple(map(slice, first, last))]
        return result

    def flip_axes(self, item: int) -> tuple[int, ...]:
        """Left and right: upside-down or back-to-front heads are in no scan."""
        return (0,)


def open_brats(
    config: SourceConfig, preprocessing: PreprocessingConfig | None = None
) -> dict[Split, BraTSDataset]:
    """Find, check, preprocess and split the scans of ``data.data_dir``; print what was found.

    Raises:
        Prod9Error: no folder, or no cases in it; bad cases, unless they are to be skipped; a split
            file that does not fit; a cache that cannot be written.
    """
    assert isinstance(config, BraTSSourceConfig)
    preprocessing = preprocessing or getattr(config, "preprocessing", None)
    if preprocessing is None:
        raise Prod9Error(
            "the tokenizer was not trained on scans; choose the --config of a BraTS model, or "
            "another data.dataset_name."
        )
    cohort = find_cases(config.data_dir)
    cache = _cache(config)
    with Progress(transient=True) as bar:
        task = bar.add_task("reading scans", total=len(cohort.cases))
        scans, unread = prepare(cohort.cases, preprocessing, cache, lambda: bar.advance(task))
    bad = sorted((*cohort.bad, *unread), key=lambda case: case.name)
    d, h, w = (max((scan.shape[axis] for scan in scans), default=0) for axis in range(3))
    say(
        f"{config.data_dir}: release {' and '.join(cohort.releases)}; {len(scans)} usable cases of "
        f"{len({scan.subject for scan in scans})} subjects, {len(bad)} broken; "
        f"{', '.join(MODALITIES)}; preprocessed to {times((d, h, w))} voxels of "
        f"{times(preprocessing.spacing_mm)} mm, in {cache}"
    )
    if len(cohort.releases) > 1:
        say(
            "warning: releases share patients under other names; with several in one folder the "
            "same patient may be in train and test. Split and train on one."
        )
    if bad:
        _report(bad, config, total=len(cohort.cases) + len(cohort.bad))
    if not scans:
        raise Prod9Error(f"{config.data_dir} has no case that can be used; see the causes above.")
    # Broken cases belong to a split too: once repaired, they are in it.
    names = [case.name for case in (*cohort.cases, *cohort.bad)]
    with main_first():  # it is written if there is none
        split = _split(config, names)
    splits: dict[Split, BraTSDataset] = {
        name: BraTSDataset(
            f"{config.data_dir}, {name} split",
            [scan for scan in scans if split.split_of(scan.subject) == name],
            (d, h, w),
            preprocessing,
        )
        for name in SPLITS
    }
    if empty := [name for name, data in splits.items() if not len(data)]:
        raise Prod9Error(
            f"{config.split_file} leaves no scan of {config.data_dir} for {' and '.join(empty)}; "
            "choose another data.split_file to split anew."
        )
    counts = ", ".join(f"{len(data)} {name}" for name, data in splits.items())
    say(f"split by subject ({config.split_file}): {counts}")
    return splits


def outline_brats(config: SourceConfig, subjects: int | None = None) -> Outline:
    """Count the cases by their names; the shape is that of BraTS releases."""
    assert isinstance(config, BraTSSourceConfig)
    preprocessing = getattr(config, "preprocessing", PreprocessingConfig())
    train = val = None
    note = ""
    if subjects is not None:
        shares = (1 - config.val_share - config.test_share, config.val_share, config.test_share)
        (train, val, _), note = split_counts(subjects, shares), "as --cases says"
    elif config.data_dir.exists():
        cohort = find_cases(config.data_dir)
        names = [case.name for case in (*cohort.cases, *cohort.bad)]
        split = _split(config, names, write=False)
        splits = [split.split_of(case.subject) for case in cohort.cases]
        train, val = splits.count("train"), splits.count("val")
        note = f"of {len(cohort.cases)} cases in {config.data_dir}, unread"
    spacing = preprocessing.spacing_mm
    d, h, w = (round(mm / size) for mm, size in zip(_GRID_MM, spacing, strict=True))
    return Outline(train, val, (d, h, w), ("all",), MODALITIES, note, assumed=True)


def _split(config: BraTSSourceConfig, names: Sequence[str], *, write: bool = True) -> SubjectSplit:
    """Open the split of the subjects of the cases ``names``."""
    return open_split(
        config.split_file,
        [subject_of(name) for name in names],
        seed=config.split_seed,
        val_share=config.val_share,
        test_share=config.test_share,
        write=write,
    )


def _cache(config: BraTSSourceConfig) -> Path:
    cache = config.cache_dir or cache_dir() / "scans"
    inside = cache.resolve()
    if config.data_dir.resolve() in (inside, *inside.parents):
        raise Prod9Error(
            f"data.cache_dir ({cache}) lies inside data.data_dir ({config.data_dir}), which is "
            "only read; choose a folder outside it."
        )
    return cache


def _report(bad: Sequence[BadCase], config: BraTSSourceConfig, total: int) -> None:
    if config.on_bad_case == "skip":
        for case in bad:
            say(f"left out: {case.name} {case.cause}")
        return
    raise Prod9Error(
        f"{len(bad)} of {total} cases in {config.data_dir} cannot be used, the first: "
        f"{bad[0].name} {bad[0].cause}. Repair them (all causes: prod9 data inspect "
        f"{config.data_dir}), or set data.on_bad_case=skip to leave them out."
    )
