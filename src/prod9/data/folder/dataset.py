"""Any folder of scans as data set: understood, preprocessed, split by subject."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from prod9.config.data import (
    FolderPreprocessingConfig,
    FolderSourceConfig,
    PreprocessingConfig,
    SourceConfig,
)
from prod9.config.dataset import DatasetDescription, ScanEntry, split_part
from prod9.data.dataset import Channel, Outline
from prod9.data.folder.choices import completed
from prod9.data.folder.covariates import add_volumes, covariates_of, values_of
from prod9.data.folder.fingerprint import take_fingerprint
from prod9.data.folder.read_part import read_part
from prod9.data.folder.understand import understand
from prod9.data.native_space import window_of
from prod9.data.scan_cache import Scan, ScanSource, require_one_grid
from prod9.data.scan_dataset import ScanDataset
from prod9.data.scan_splits import cache_of, read_scans, report_bad, split_of, split_scans
from prod9.data.splits import SPLITS, Split, SubjectSplit, split_counts
from prod9.data.volume_files.stored_volume import StoredVolume, times
from prod9.errors import Prod9Error
from prod9.label_codes import PARTS, part_names
from prod9.runtime.console import say
from prod9.runtime.progress import progress_bar


class FolderScan(ScanSource):
    """The files of one scan of a description."""

    def __init__(
        self, name: str, entry: ScanEntry, root: Path, preprocessing: FolderPreprocessingConfig
    ) -> None:
        self.name, self.subject, self.root = name, entry.subject, root
        self.channels = (*preprocessing.channels, *preprocessing.labels)
        self.files = [entry.files[channel] for channel in self.channels]
        self._windows = [window_of(preprocessing, channel, name) for channel in self.channels]
        self._labels = preprocessing.labels

    @property
    def paths(self) -> list[Path]:
        """Every file; of a DICOM folder all its files."""
        found: dict[Path, None] = {}
        for file in self.files:
            path = self.root / split_part(file)[0]
            if path.is_dir():
                found |= dict.fromkeys(sorted(each for each in path.iterdir() if each.is_file()))
            else:
                found[path] = None
        return list(found)

    @property
    def layout(self) -> str:
        """Part and place of each channel among the files."""
        paths = [self.root / split_part(file)[0] for file in self.files]
        order = [*dict.fromkeys(paths)]
        parts = [split_part(file)[1] for file in self.files]
        return repr([(order.index(path), part) for path, part in zip(paths, parts, strict=True)])

    def read(self) -> list[StoredVolume]:
        volumes = [read_part(self.root, file) for file in self.files]
        require_one_grid(self.name, self.channels, volumes, may_be_empty=self._labels)
        return volumes

    @property
    def windows(self) -> list[tuple[float, float] | None]:
        return self._windows

    @property
    def labels(self) -> Mapping[str, tuple[int, ...]]:
        return self._labels


class FolderDataset(ScanDataset):
    """Preprocessed scans of a folder."""

    mirror = False
    """Whether a mirrored scan is as good as the scan (``dataset.yaml``)."""

    intensity = "in [0, 1] as dataset.yaml says"

    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return voxels of one channel, float32; beyond the scan those of its border go on.

        The parts of a channel of labels (:data:`prod9.label_codes.PARTS`) are all the whole map.

        A frame of zeros around a scan that is cut out of a larger one would be learned as anatomy.
        """
        if self.channels[channel].kind == "labels":
            return self._labels(item, channel, start, sides)
        return self._extended(item, channel, start, sides)

    def _labels(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return labels; the cache holds one channel for all the parts, of indices into values."""
        assert isinstance(self.preprocessing, FolderPreprocessingConfig)
        images, names = len(self.preprocessing.channels), [*self.preprocessing.labels]
        name = names[(channel - images) // PARTS]
        stored = images + names.index(name)
        indices = self._extended(item, stored, start, sides).astype(np.int64)
        return np.array(self.preprocessing.labels[name], np.float32)[indices]

    def _extended(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        margin = (np.array(self.shape) - np.array(self.scans[item].shape)) // 2
        wanted = [
            np.clip(np.arange(begin, begin + side), before, before + own - 1)
            for begin, side, before, own in zip(
                start, sides, margin.tolist(), self.scans[item].shape, strict=True
            )
        ]
        low, high = [int(axis[0]) for axis in wanted], [int(axis[-1]) + 1 for axis in wanted]
        inner = [last - first for first, last in zip(low, high, strict=True)]
        block = super().crop(item, channel, low, inner)
        if inner == [*sides]:
            return block
        return block[np.ix_(*(axis - first for axis, first in zip(wanted, low, strict=True)))]

    def flip_axes(self, item: int) -> tuple[int, ...]:
        return (0,) if self.mirror else ()


def described(path: Path) -> DatasetDescription:
    """Return the description of a folder (or a ``dataset.yaml``, a table, a list), complete.

    Every file is read where the description does not say yet how scans become volumes.

    Raises:
        Prod9Error: nothing is known there, a problem of the layout, or scans that do not fit
            together.
    """
    description, problems = understand(path)
    if problems:
        raise Prod9Error(
            f"{path}: {len(problems)} problems, the first: {problems[0]} See all of them with "
            f"prod9 data inspect {path}, and mend what was guessed wrong in its dataset.yaml."
        )
    known = all(
        description.channels[name].scaling is not None for name in description.intensity_channels
    )
    if known and description.shape is not None and description.spacing_mm is not None:
        return description
    with progress_bar("looking at scans", "scans") as tell:
        fingerprint = take_fingerprint(description, tell)
    if fingerprint.mixed:
        raise Prod9Error(fingerprint.mixed[0])
    return completed(description, fingerprint)


def preprocessing_of(
    description: DatasetDescription, percentiles: tuple[float, float] = (0.1, 99.9)
) -> FolderPreprocessingConfig:
    """Return how the scans of a complete description become volumes."""
    names = description.intensity_channels
    if not names:
        raise Prod9Error(
            f"{description.name} has no channel of grey values; set kind: intensity for one of "
            f"{', '.join(description.channels)} in dataset.yaml."
        )
    assert description.shape is not None
    assert description.spacing_mm is not None
    found = {name: description.channels[name].window for name in names}
    return FolderPreprocessingConfig(
        spacing_mm=description.spacing_mm,
        percentiles=percentiles,
        shape=description.shape,
        channels=names,
        windows={name: window for name, window in found.items() if window is not None},
        labels=description.learned_labels,
    )


def channels_of(preprocessing: FolderPreprocessingConfig) -> tuple[Channel, ...]:
    """Return the channels of a data set; each channel of labels is as many as it has parts."""
    images = tuple(Channel(name) for name in preprocessing.channels)
    parts = [part for name in preprocessing.labels for part in part_names(name)]
    return (*images, *(Channel(name, "labels") for name in parts))


def open_folder(
    config: SourceConfig, preprocessing: PreprocessingConfig | None = None
) -> dict[Split, FolderDataset]:
    """Find, preprocess and split the scans of ``data.path``; print what was found.

    Raises:
        Prod9Error: nothing is known there; bad scans, unless they are to be skipped; a tokenizer of
            other channels; a split file that does not fit; a cache that cannot be written.
    """
    assert isinstance(config, FolderSourceConfig)
    description = described(config.path)
    own = preprocessing or getattr(config, "preprocessing", None) or preprocessing_of(description)
    if not isinstance(own, FolderPreprocessingConfig):
        raise Prod9Error("the tokenizer was not trained on a folder of scans; train Stage 1 first.")
    label_channels = {n for n, each in description.channels.items() if each.kind == "labels"}
    if missing := set(own.labels) - label_channels:
        raise Prod9Error(
            f"{config.path} has no channel {min(missing)} of labels; the tokenizer was trained on "
            f"{', '.join(own.labels)}. Name the channels alike in dataset.yaml."
        )
    if missing := set(own.channels) - set(description.intensity_channels):
        raise Prod9Error(
            f"{config.path} has no channel {min(missing)} of grey values; the tokenizer was "
            f"trained on {', '.join(own.channels)}. Name the channels alike in dataset.yaml."
        )
    root = description.root
    cache = cache_of(config, root, "data.path")
    sources = [FolderScan(name, entry, root, own) for name, entry in description.scans.items()]
    scans, bad = read_scans(sources, (), config, own, cache)
    report_bad(bad, config, root, len(sources), len(scans))
    say(
        f"{description.name} ({description.layout}): {len(scans)} scans of "
        f"{len({scan.subject for scan in scans})} subjects; "
        f"{', '.join((*own.channels, *own.labels))}; "
        f"{times(own.shape)} voxels of {times(own.spacing_mm)} mm"
    )
    entries = description.scans
    fixed = _split_in(description)
    split = fixed or split_of(config, [entry.subject for entry in entries.values()])
    train = [entry for entry in entries.values() if entry.subject in split.train]
    covariates = covariates_of(description, train)
    class_names = description.classes or ("all",)

    def make(name: str, chosen: list[Scan]) -> FolderDataset:
        own_entries = [entries[scan.name] for scan in chosen]
        data = FolderDataset(
            name,
            chosen,
            own.shape,
            own,
            channels_of(own),
            classes=[class_names.index(entry.class_name or "all") for entry in own_entries]
            if description.classes
            else (),
            class_names=class_names,
            covariates=covariates,
            values=[values_of(entry, covariates) for entry in own_entries] if covariates else (),
        )
        data.mirror = description.mirror
        if own.labels and len(own.channels) > 1:  # label maps are no image to compare with
            data.translation_order = tuple(range(len(own.channels)))
        return data

    source = "the split of the data itself" if fixed else str(config.split_file)
    splits = split_scans(scans, split, make, root, source)
    if description.label_volumes and own.labels:
        add_volumes(splits, description.label_volumes)
    return splits


def outline_folder(config: SourceConfig, subjects: int | None = None) -> Outline:
    """Count the scans of a description."""
    assert isinstance(config, FolderSourceConfig)
    description = described(config.path)
    own = getattr(config, "preprocessing", None) or preprocessing_of(description)
    entries = list(description.scans.values())
    note = f"of {len(entries)} scans in {config.path}"
    if subjects is None:
        names = [entry.subject for entry in entries]
        split = _split_in(description) or split_of(config, names, write=False)
        where = [split.split_of(name) for name in names]
        train, val = where.count("train"), where.count("val")
    else:
        shares = (1 - config.val_share - config.test_share, config.val_share, config.test_share)
        (train, val, _), note = split_counts(subjects, shares), "as --cases says"
    classes = description.classes or ("all",)
    channels = channels_of(own)
    names = tuple(channel.name for channel in channels)
    labels = sum(channel.kind == "labels" for channel in channels)
    return Outline(train, val, own.shape, classes, names, note, labels=labels)


def _split_in(description: DatasetDescription) -> SubjectSplit | None:
    """Return the split that the data itself has, if every scan says where it belongs.

    Raises:
        Prod9Error: only some scans say so; a subject is in two splits; a split is empty.
    """
    entries = description.scans
    said = [name for name, entry in entries.items() if entry.split is not None]
    if not said:
        return None
    if len(said) < len(entries):
        silent = next(name for name in entries if entries[name].split is None)
        raise Prod9Error(
            f"the scan {said[0]} says which split it is in and {silent} does not; give split: for "
            "all scans, or for none, to draw one."
        )
    where: dict[str, Split] = {}
    for name, entry in entries.items():
        assert entry.split is not None
        if where.setdefault(entry.subject, entry.split) != entry.split:
            raise Prod9Error(
                f"the subject {entry.subject} is in {where[entry.subject]} and, with the scan "
                f"{name}, in {entry.split}; put all scans of a subject into one split."
            )
    train, val, test = (tuple(s for s, own in where.items() if own == split) for split in SPLITS)
    parts = zip(SPLITS, (train, val, test), strict=True)
    if empty := [split for split, members in parts if not members]:
        raise Prod9Error(
            f"{description.name} puts no subject into {empty[0]}; give train, val and test "
            "subjects each, or no split at all, to draw one."
        )
    return SubjectSplit(train=train, val=val, test=test, seed=0, val_share=0.0, test_share=0.0)
