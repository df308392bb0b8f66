"""The data interface: subjects with co-registered channels on one grid, read crop by crop.

Training, token stores, evaluation, previews and plans know a data set by :class:`Dataset` alone.
:func:`register_dataset` adds a kind of data set, from outside of prod9 too.
"""

import hashlib
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from pydantic import create_model

from prod9.config.data import PreprocessingConfig, SourceConfig
from prod9.data.splits import SPLITS, Split
from prod9.errors import Prod9Error
from prod9.label_codes import PARTS
from prod9.registry import DATASETS, DatasetKind, imported

Sides: TypeAlias = tuple[int, int, int]
ChannelKind: TypeAlias = Literal["intensity", "labels"]


@dataclass(frozen=True)
class Channel:
    """One of the co-registered volumes of a subject, such as T1 or a segmentation."""

    name: str
    kind: ChannelKind = "intensity"
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


@dataclass(frozen=True)
class LabelVolume:
    """A covariate that is the volume of a label."""

    covariate: int
    """Index of the covariate."""
    channel: int
    """Of labels."""
    label: int


class Dataset(ABC):
    """One split of a data set. Subclasses set the attributes without a default."""

    name: str
    """Shown in tables, such as ``organmnist3d/test``."""
    channels: tuple[Channel, ...]
    names: Sequence[str]
    """One per item, unique."""
    shape: Sides
    """Voxels per side of every volume, axes RAS+."""
    class_names: tuple[str, ...] = ("all",)
    covariates: tuple[Covariate, ...] = ()
    label_volumes: tuple[LabelVolume, ...] = ()
    """The covariates that change with the shape of a label."""
    spacing_mm: tuple[float, float, float] | None = None
    """None if not known."""
    subjects: Sequence[str] = ()
    """The subject of each item; () if not known: then the splits are taken as published."""
    preprocessing: PreprocessingConfig | None = None
    """How files became volumes; None if they are used as they are stored."""
    intensity: str = "stored in [0, 1]"
    """How stored intensities became [0, 1], in words."""
    translation_order: tuple[int, ...] = ()
    """Channels from the most to the least often acquired. ``test`` measures the last, generated
    from the first, from the first two, and so on; () takes the order of ``channels``."""

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

    def volume_of(self, item: int, volume: LabelVolume) -> float:
        """Return the volume of a label in an item, ml."""
        voxels = int((self.whole(item, volume.channel) == volume.label).sum())
        return voxels * math.prod(self.spacing_mm or (1.0, 1.0, 1.0)) / 1000

    def flip_axes(self, item: int) -> tuple[int, ...]:
        """Return the axes (0, 1, 2) along which a mirrored volume keeps its class."""
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
        """Name of each label: of a class and a channel, channels of the first class first.

        The class alone if there is one channel, the channel alone if there is one class.
        """
        channels = tuple(channel.name for channel in self.channels)
        if len(channels) == 1:
            return self.class_names
        if len(self.class_names) == 1:
            return channels
        return tuple(f"{one}/{channel}" for one in self.class_names for channel in channels)

    @property
    def image_channels(self) -> tuple[int, ...]:
        """The channels that a network encodes: all, but for a folder's labels."""
        if not getattr(self.preprocessing, "labels", None):
            return tuple(range(len(self.channels)))
        return tuple(c for c, each in enumerate(self.channels) if each.kind == "intensity")

    @property
    def targets(self) -> list[int]:
        """The channels that Stage 2 learns of an item in an epoch; see :func:`targets_of`."""
        return targets_of(len(self.image_channels), len(self.channels))

    def label_of(self, item: int, channel: int) -> int:
        """Return the label of a volume: its class and its channel as one number."""
        return self.class_of(item) * len(self.channels) + channel

    def name_of(self, item: int, channel: int) -> str:
        """Return the name of one channel of an item."""
        alone = len(self.channels) == 1
        return self.names[item] if alone else f"{self.names[item]}/{self.channels[channel].name}"


@runtime_checkable
class Splits(Protocol):
    """``splits["train"]``: a dictionary, or an object that reads a split on demand."""

    def __getitem__(self, split: Split, /) -> Dataset: ...


@dataclass(frozen=True)
class Outline:
    """What is known of a data set without reading a volume, for ``prod9 plan``."""

    train: int | None
    """Items of the training split; None if not known."""
    val: int | None
    shape: Sides
    class_names: tuple[str, ...]
    channels: tuple[str, ...]
    note: str = ""
    """Where the numbers of items come from."""
    assumed: bool = False
    """Whether ``shape`` is only what such data usually has."""
    labels: int = 0
    """How many of the channels, the last ones, are of labels."""

    @property
    def targets(self) -> list[int]:
        """As :attr:`Dataset.targets`."""
        return targets_of(len(self.channels) - self.labels, len(self.channels))


def targets_of(images: int, channels: int) -> list[int]:
    """Return the channels, images first, that Stage 2 learns of an item in an epoch.

    Each one; where there are labels, an image is learned as often as all the parts of a label map.
    """
    repeats = 1 if images == channels else PARTS
    return [c for c in range(channels) for _ in range(repeats if c < images else 1)]


Open: TypeAlias = Callable[[SourceConfig, PreprocessingConfig | None], Splits]
"""(section ``data``, preprocessing of the tokenizer or None for the section's own) -> splits."""


def register_dataset(
    name: str, config: type[SourceConfig], stage2: type[SourceConfig] | None = None
) -> Callable[[Open], Open]:
    """Return a decorator that registers a function as the data set ``data.dataset_name: NAME``.

    ``config`` is the section ``data`` of Stage 1, ``stage2`` that of Stage 2 if it differs.
    """

    def section(model: type[SourceConfig]) -> type[SourceConfig]:
        """Return the model whose ``dataset_name`` is this name alone."""
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

    Stage 2 gives the ``preprocessing`` of its tokenizer.

    Raises:
        Prod9Error: data that is missing, cannot be downloaded or cannot be read.
    """
    opener = cast(Open, imported(DATASETS.get(config.dataset_name).open))
    splits: Any = opener(config, preprocessing)
    # What reads a split when it is first asked for is not made to read all of them here.
    if isinstance(splits, dict | list | tuple) or not isinstance(splits, Splits):
        _require_splits(splits, config.dataset_name)
    return cast(Splits, splits)


def _require_splits(splits: Any, name: str) -> None:
    """Check what a function that was registered for a data set has returned."""
    found = splits if isinstance(splits, dict) else {}
    bad = [split for split in SPLITS if not isinstance(found.get(split), Dataset)]
    if bad:
        raise Prod9Error(
            f"what opens the data set {name} must return a dictionary with a Dataset for each of "
            f"{', '.join(SPLITS)}; there is none for {', '.join(bad)}."
        )
    for one, other in itertools.combinations(SPLITS, 2):
        shared = sorted({*splits[one].subjects} & {*splits[other].subjects})
        if shared:
            raise Prod9Error(
                f"data set {name}: the subject {shared[0]} is in {one} and in {other}; split by "
                "subject."
            )


def outline(config: SourceConfig, subjects: int | None = None) -> Outline:
    """Return the size of the data set of a section ``data``, reading as little as possible.

    ``subjects`` is their number, for data that is not on this machine.
    """
    kind = DATASETS.get(config.dataset_name)
    if kind.outline is not None:
        return cast(Outline, imported(kind.outline)(config, subjects))
    splits = open_splits(config)
    train, channels = splits["train"], [channel.name for channel in splits["train"].channels]
    return Outline(len(train), len(splits["val"]), train.shape, train.class_names, (*channels,))


def require_unseen(trained_on: Collection[str], splits: Splits, what: str) -> None:
    """Refuse splits whose val or test has subjects that ``what`` was trained on."""
    if not trained_on:
        return
    seen = sorted({*splits["val"].subjects, *splits["test"].subjects} & {*trained_on})
    if seen:
        raise Prod9Error(
            f"{len(seen)} subjects of val or test are among those that {what} was trained on, the "
            f"first is {seen[0]}; use the data.split_file of that training, or train it anew."
        )
