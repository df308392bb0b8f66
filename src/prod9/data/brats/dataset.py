"""A BraTS folder as data set: found, checked, preprocessed, split by subject."""

from collections.abc import Sequence

from prod9.config.data import BraTSSourceConfig, PreprocessingConfig, SourceConfig
from prod9.data.brats.cases import CaseSource
from prod9.data.brats.layouts import MODALITIES, find_cases, subject_of
from prod9.data.dataset import Channel, Outline, Sides
from prod9.data.scan_cache import Scan
from prod9.data.scan_dataset import ScanDataset
from prod9.data.scan_splits import cache_of, read_scans, report_bad, split_of, split_scans
from prod9.data.splits import Split, split_counts
from prod9.data.volume_files.stored_volume import times
from prod9.errors import Prod9Error
from prod9.runtime.console import say

_GRID_MM = (240, 240, 155)
"""The grid of BraTS releases, voxels of 1 mm."""


class BraTSDataset(ScanDataset):
    """Preprocessed BraTS scans."""

    # T1 is there most often, then T2, then T1ce.
    translation_order = (0, 2, 1, 3)

    def __init__(
        self, name: str, scans: Sequence[Scan], shape: Sides, preprocessing: PreprocessingConfig
    ) -> None:
        super().__init__(name, scans, shape, preprocessing, self.channels)

    channels = tuple(Channel(name) for name in MODALITIES)

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
    cache = cache_of(config, config.data_dir, "data.data_dir")
    sources = [CaseSource(case) for case in cohort.cases]
    scans, bad = read_scans(sources, cohort.bad, config, preprocessing, cache)
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
    every = (*cohort.cases, *cohort.bad)
    report_bad(bad, config, config.data_dir, len(every), len(scans))

    def make(name: str, own: list[Scan]) -> BraTSDataset:
        return BraTSDataset(name, own, (d, h, w), preprocessing)

    # Broken cases belong to a split too: once repaired, they are in it.
    split = split_of(config, [subject_of(case.name) for case in every])
    return split_scans(scans, split, make, config.data_dir, str(config.split_file))


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
        split = split_of(config, [subject_of(name) for name in names], write=False)
        splits = [split.split_of(case.subject) for case in cohort.cases]
        train, val = splits.count("train"), splits.count("val")
        note = f"of {len(cohort.cases)} cases in {config.data_dir}, unread"
    spacing = preprocessing.spacing_mm
    d, h, w = (round(mm / size) for mm, size in zip(_GRID_MM, spacing, strict=True))
    return Outline(train, val, (d, h, w), ("all",), MODALITIES, note, assumed=True)
