"""``dataset.yaml``: what prod9 understood of a folder, and what a user can correct there."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from prod9.config.base import Section
from prod9.config.load import dump, load
from prod9.files import write_text

DATASET_YAML = "dataset.yaml"

Split = Literal["train", "val", "test"]
Scaling = Literal["percentiles", "window", "stored"]
_MOST_BYTES = 64 << 20
"""Some 300,000 scans."""
_PART = re.compile(r"(.+)\[([^\[\]]+)\]")


class ChannelEntry(Section):
    """One of the co-registered volumes that a subject has."""

    kind: Literal["intensity", "labels"] = "intensity"
    """`intensity`: grey values, scaled to [0, 1]. `labels`: whole numbers (a segmentation)."""
    scaling: Scaling | None = None
    """How grey values become [0, 1]; chosen from the values when left out. `percentiles`: of each
    scan's own foreground (MR). `window`: the same two values in all scans (CT). `stored`: they are
    in [0, 1] already, or 0 to 255."""
    window: tuple[float, float] | None = None
    """Stored values that become 0 and 1 (`scaling: window` or `stored`)."""
    values: tuple[int, ...] = ()
    """Labels that occur (`kind: labels`)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "labels" and self.scaling is not None:
            raise ValueError("a channel of labels has no scaling")
        if self.scaling == "window" and self.window is None:
            raise ValueError("scaling: window needs window: [low, high]")
        if self.scaling not in ("window", "stored") and self.window is not None:
            raise ValueError("a window is only used with scaling: window or stored")
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window must rise, not {list(self.window)}")
        return self


class ScanEntry(Section):
    """One item: the channels of a subject at one time, all on one grid."""

    subject: str
    """Who it is; all scans of a subject are in the same split."""
    files: dict[str, str]
    """Channel -> file (or folder of a DICOM series), relative to `root`. `FILE[PART]` is one part:
    a volume of a 4D file by its number from 0, an array of an npz by its key, a series of a DICOM
    folder by its SeriesInstanceUID."""
    class_name: str | None = None
    """One of `classes`."""
    split: Split | None = None
    """Where the data itself says so; drawn by subject when left out."""
    covariates: dict[str, float | str | None] = Field(default={})
    """What is known of the subject then, such as age; null where it is not known."""


class DatasetDescription(Section):
    """A folder of scans: channels, classes, and which files belong to whom."""

    name: str
    """Shown in tables and in the model card."""
    root: Path
    """The folder; a relative one is relative to the file that this is read from."""
    layout: str
    """How the folder was recognised; only read by people."""
    channels: dict[str, ChannelEntry] = Field(min_length=1)
    """By name, in order."""
    classes: tuple[str, ...] = ()
    """Names; empty if scans have no class."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel size of training (right, front, up), mm; chosen from the scans when left out."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """Voxels of the common training grid (right, front, up); chosen from the scans when left out.
    Smaller scans are padded by repeating their border, larger ones are cropped around their
    middle."""
    cut_out: bool | None = None
    """Whether scans are cut out of larger ones, with anatomy up to their faces. Sampling then
    starts with the most certain tokens; around a whole body these would be the empty space. When
    left out, it is found in the scans where they have to be read for `shape`, `spacing_mm` or
    `scaling`, and is else false."""
    mirror: bool = False
    """Whether a scan mirrored left to right is as good as the scan itself."""
    learn_labels: bool = False
    """Whether channels of labels are learned too: volumes can then be generated from a label map,
    label maps from volumes, and both together."""
    label_volumes: tuple[PositiveInt, ...] = Field(default=(), exclude_if=lambda found: not found)
    """Labels, of the first channel of labels, whose volume (ml) is a covariate, `volume:LABEL`; of
    copies that are changed for training it is measured in the copy."""
    licence: str = ""
    """Of the data, for the model card."""
    scans: dict[str, ScanEntry] = Field(default={})
    """All scans, by name. Empty in the copy that a trained model carries."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.label_volumes:
            known = next(iter(self.learned_labels.values()), ())
            if unknown := {*self.label_volumes} - {*known}:
                raise ValueError(
                    f"label_volumes has {min(unknown)}, which is none of the labels that are "
                    f"learned ({', '.join(map(str, known)) or 'none: set learn_labels: true'})"
                )
        for name, scan in self.scans.items():
            if missing := self.channels.keys() - scan.files.keys():
                raise ValueError(f"scans.{name} has no file for the channel {min(missing)}")
            if unknown := scan.files.keys() - self.channels.keys():
                raise ValueError(
                    f"scans.{name} has a file for {min(unknown)}, which is none of the channels"
                )
            if scan.class_name is None and self.classes:
                raise ValueError(f"scans.{name} has no class_name; give one of the classes")
            if scan.class_name is not None and scan.class_name not in self.classes:
                raise ValueError(
                    f"scans.{name} has the class {scan.class_name}, which is none of the classes"
                )
        return self

    @property
    def intensity_channels(self) -> tuple[str, ...]:
        """Names of the channels of grey values."""
        return tuple(name for name, each in self.channels.items() if each.kind == "intensity")

    @property
    def learned_labels(self) -> dict[str, tuple[int, ...]]:
        """Values of each channel of labels that is learned, by name: 0, and the others rising."""
        if not self.learn_labels:
            return {}
        return {
            name: (0, *sorted({*each.values} - {0}))
            for name, each in self.channels.items()
            if each.kind == "labels"
        }


def split_part(file: str) -> tuple[str, str]:
    """Split ``FILE[PART]`` into file and part; the part is "" where there is none."""
    match = _PART.fullmatch(file)
    return (match[1], match[2]) if match else (file, "")


def read_description(path: Path) -> DatasetDescription:
    """Read a ``dataset.yaml``; its ``root`` becomes a path from the current folder.

    Raises:
        Prod9Error: all that is wrong, each with file and line.
    """
    found = load(path, DatasetDescription, most_bytes=_MOST_BYTES)
    return found.model_copy(update={"root": path.parent / found.root})


def write_description(path: Path, description: DatasetDescription) -> None:
    """Write a ``dataset.yaml``, whole or not at all, with an absolute ``root``."""
    absolute = description.model_copy(update={"root": description.root.resolve()})
    write_text(path, dump(absolute))
