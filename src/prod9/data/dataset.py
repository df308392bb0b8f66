"""The data interface: subjects with co-registered channels on one grid, read crop by crop.

Training, token stores, evaluation, previews and plans know a data set by :class:`Dataset` alone.
:func:`register_dataset` adds a kind of data set, from outside of prod9 too.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from pydantic import create_model

from prod9.config.data import PreprocessingConfig, SourceConfig
from prod9.data.splits import Split
from prod9.errors import Prod9Error
from prod9.registry import DATASETS, DatasetKind, imported

Sides: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Channel:
    """One of the co-registered volumes of a subject, such as T1 or a segmentation."""

    name: str
    kind: Literal["intensity", "labels"] = "intensity"
    """``intensity``: scaled to [0, 1]. ``labels``: whole numbers, never interpolated."""


@dataclass(frozen=True)
class Covariate:
    """A number or a category that is known of a subject, such as age or sex."""

    name: str
    categories: tuple[str, ...] = ()
    """Names of the categories, in the order of their indices; empty for a number."""
    mean: float = 0.0
    std: float = 1.0
    """Of a number over the training split: the network sees (value - mean) / std."""


class Dataset(ABC):
    """One split of a data set. Subclasses set the attributes without a default."""

    name: str
    """What tables call it, such as ``organmnist3d/test``."""
    channels: tuple[Channel, ...]
    names: Sequence[str]
    """One per item, unique."""
    shape: Sides
    """Voxels per side of every volume, axes RAS+."""
    class_names: tuple[str, ...] = ("all",)
    covariates: tuple[Covariate, ...] = ()
    spacing_mm: tuple[float, float, float] | None = None
    """None where it is not known."""
    subjects: Sequence[str] = ()
    """Who each item is of; () where that is not known and the splits are taken as published."""
    preprocessing: PreprocessingConfig | None = None
    """How files became volumes; None where they are taken as they are stored."""
    intensity: str = "stored in [0, 1]"
    """How stored intensities became [0, 1], in words."""
    translation_order: tuple[int, ...] = ()
    """Channels from the one that is most often at hand to the rarest. ``test`` measures the last,
    drawn from the first, the first two, and so on; () takes the order of ``channels``."""

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return the voxels ``start`` to ``start + sides`` of a channel: float32 in [0, 1]."""

    def class_of(self, item: int) -> int:
        """Return the class of an item, an index into ``class_names``."""
        return 0

    def covariates_of(self, item: int) -> tuple[float | None, ...]:
        """Return the numbers and category indices of an item; None where one is not given."""
        return (None,) * len(self.covariates)

    def flip_axes(self, item: int) -> tuple[int, ...]:
        """Return the axes (0, 1, 2) along which a mirror image is as likely of the item's class."""
        return ()

    def box(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and one past the last voxel of the foreground, (3,) each."""
        return np.zeros(3, np.int64), np.array(self.shape)

    def whole(self, item: int, channel: int) -> np.ndarray:
        """Return a channel of an item, float32 (D, H, W) in [0, 1]."""
        return self.crop(item, channel, (0, 0, 0), self.shape)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all that decides tokens, classes and crops."""
        sha = hashlib.sha256(repr((self.channels, self.class_names, self.shape)).encode())
        for item, name in enumerate(self.names):
            sha.update(f"{name} {self.class_of(item)} {self.covariates_of(item)}".encode())
            for channel in range(len(self.channels)):
                sha.update(np.ascontiguousarray(self.whole(item, channel)).data)
        return sha.hexdigest()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each label."""
        return label_names(self.class_names, tuple(channel.name for channel in self.channels))

    def label_of(self, item: int, channel: int) -> int:
        """Return the label of a volume: its class and its channel as one number."""
        return self.class_of(item) * len(self.channels) + channel

    def name_of(self, item: int, channel: int) -> str:
        """Return the name of one channel of an item."""
        alone = len(self.channels) == 1
        return self.names[item] if alone else f"{self.names[item]}/{self.channels[channel].name}"


@runtime_checkable
class Splits(Protocol):
    """``splits["train"]``: a dictionary, or what reads a split when it is asked for."""

    def __getitem__(self, split: Split, /) -> Dataset: ...


def label_names(class_names: Sequence[str], channels: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all (class, channel), channels of the first class first.

    The class alone where there is one channel, the channel alone where there is one class.
    """
    if len(channels) == 1:
        return tuple(class_names)
    if len(class_names) == 1:
        return tuple(channels)
    return tuple(f"{one}/{channel}" for one in class_names for channel in channels)


class ArrayDataset(Dataset):
    """Volumes in memory.

    Args:
        name: as of :class:`Dataset`.
        images: (N, C, D, H, W); uint8, which is divided by 255, or float in [0, 1].
        channels: C.
        names: one per item; numbered when left out.
        classes: index of each item's class, (N,); all 0 when left out.
        class_names: of the classes.
        flips: axes of :meth:`flip_axes` for each class; none when left out.
        subjects: as of :class:`Dataset`.
        covariates: as of :class:`Dataset`.
        values: of the covariates, for each item.
        spacing_mm: as of :class:`Dataset`.
    """

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        channels: tuple[Channel, ...] = (Channel("volume"),),
        *,
        names: Sequence[str] | None = None,
        classes: np.ndarray | None = None,
        class_names: tuple[str, ...] = ("all",),
        flips: Sequence[tuple[int, ...]] | None = None,
        subjects: Sequence[str] = (),
        covariates: tuple[Covariate, ...] = (),
        values: Sequence[tuple[float | None, ...]] = (),
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> None:
        self.name, self.images, self.channels = name, images, channels
        d, h, w = images.shape[2:]
        self.shape = d, h, w
        self.names = names or tuple(f"{index:05d}" for index in range(len(images)))
        self.classes = np.zeros(len(images), np.int64) if classes is None else classes
        self.class_names, self.flips = class_names, flips or [()] * len(class_names)
        self.subjects, self.spacing_mm = subjects, spacing_mm
        self.covariates, self.values = covariates, values
        self.intensity = "uint8 / 255" if images.dtype == np.uint8 else "stored in [0, 1]"

    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return voxels of a channel, float32.

        Raises:
            Prod9Error: the volume has NaN or infinite voxels; the sentence names it.
        """
        where = tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))
        part = self.images[(item, channel, *where)]
        if part.dtype == np.uint8 and self.channels[channel].kind == "intensity":
            return np.divide(part, 255, dtype=np.float32)
        part = part.astype(np.float32)
        require_finite(part, self.name_of(item, channel))
        return part

    def class_of(self, item: int) -> int:
        return int(self.classes[item])

    def covariates_of(self, item: int) -> tuple[float | None, ...]:
        return self.values[item] if self.values else super().covariates_of(item)

    def flip_axes(self, item: int) -> tuple[int, ...]:
        return self.flips[self.class_of(item)]


def require_finite(volume: np.ndarray, name: str) -> None:
    """Refuse a volume with NaN or infinite voxels.

    Raises:
        Prod9Error: with the volume's name and the number of such voxels.
    """
    bad = volume.size - int(np.count_nonzero(np.isfinite(volume)))
    if bad:
        raise Prod9Error(
            f"{name} has {bad} of {volume.size} voxels that are NaN or infinite; repair the volume "
            "or leave it out."
        )


@dataclass(frozen=True)
class Outline:
    """What is known of a data set without reading a volume, for ``prod9 plan``."""

    train: int | None
    """Items of the training split; None where nobody knows."""
    val: int | None
    shape: Sides
    class_names: tuple[str, ...]
    channels: tuple[str, ...]
    note: str = ""
    """Where the numbers of items come from."""
    assumed: bool = False
    """Whether ``shape`` is what such data usually has."""


Open: TypeAlias = Callable[[SourceConfig, PreprocessingConfig | None], Splits]
"""(section ``data``, preprocessing of the tokenizer or None for the section's own) -> splits."""


def register_dataset(
    name: str, config: type[SourceConfig], stage2: type[SourceConfig] | None = None
) -> Callable[[Open], Open]:
    """Return a decorator that registers what opens a data set as ``data.dataset_name: NAME``.

    Args:
        name: of the data set.
        config: the section ``data`` of Stage 1.
        stage2: of Stage 2, as Stage 1's when left out.
    """

    def section(model: type[SourceConfig]) -> type[SourceConfig]:
        """Return the section of this name alone: ``data.dataset_name`` chooses by it."""
        fields: dict[str, Any] = {"dataset_name": (Literal[name], ...)}
        return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)

    def register(open_splits: Open) -> Open:
        first = section(config)
        DATASETS.register(
            name, DatasetKind(first, section(stage2) if stage2 else first, open_splits)
        )
        return open_splits

    return register


def open_splits(config: SourceConfig, preprocessing: PreprocessingConfig | None = None) -> Splits:
    """Open the data set of a section ``data``; a split may be read when it is first asked for.

    Args:
        config: names the data set.
        preprocessing: of the tokenizer, in Stage 2.

    Raises:
        Prod9Error: data that is missing, cannot be had or cannot be read.
    """
    opener = cast(Open, imported(DATASETS.get(config.dataset_name).open))
    return opener(config, preprocessing)


def open_dataset(
    config: SourceConfig, split: Split, preprocessing: PreprocessingConfig | None = None
) -> Dataset:
    """Open one split, see :func:`open_splits`."""
    return open_splits(config, preprocessing)[split]


def outline(config: SourceConfig, subjects: int | None = None) -> Outline:
    """Say how much data a section ``data`` stands for, reading as little as possible.

    Args:
        config: names the data set.
        subjects: how many there are, where the data is elsewhere.

    Raises:
        Prod9Error: as :func:`open_splits`.
    """
    kind = DATASETS.get(config.dataset_name)
    if kind.outline is not None:
        return cast(Outline, imported(kind.outline)(config, subjects))
    splits = open_splits(config)
    train, channels = splits["train"], [channel.name for channel in splits["train"].channels]
    return Outline(len(train), len(splits["val"]), train.shape, train.class_names, (*channels,))


def require_unseen(trained_on: Collection[str], splits: Splits, what: str) -> None:
    """Refuse a split whose val or test has subjects that ``what`` was trained on.

    Raises:
        Prod9Error: it names the first.
    """
    if not trained_on:
        return
    seen = sorted({*splits["val"].subjects, *splits["test"].subjects} & {*trained_on})
    if seen:
        raise Prod9Error(
            f"{len(seen)} subjects of val or test are among those that {what} was trained on, the "
            f"first is {seen[0]}; use the data.split_file of that training, or train it anew."
        )
