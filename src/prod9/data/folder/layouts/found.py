"""What a layout finds in a folder, gathered file by file."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from prod9.config.dataset import ChannelEntry, ScanEntry, Split, split_part
from prod9.data.volume_files.find import VolumeFile

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}
"""What others call the splits, in lower case."""
_LABELS = {"seg", "dseg", "label", "labels", "mask", "segmentation"}


@dataclass(frozen=True)
class Found:
    """A folder as one of the layouts understands it."""

    layout: str
    """Its name, and what was left out on purpose."""
    channels: dict[str, ChannelEntry]
    scans: dict[str, ScanEntry]
    """By name, sorted; each has a file for every channel."""
    classes: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    """A sentence for each case that is not among ``scans``, and whatever else is wrong."""
    name: str = ""
    """Of the data set, where it states one."""
    licence: str = ""


@dataclass
class _Item:
    subject: str
    files: dict[str, str]
    class_name: str | None
    split: Split | None
    covariates: dict[str, float | str | None]


def kind_of(channel: str) -> Literal["intensity", "labels"]:
    """Return what a channel holds, by the last word of its name."""
    return "labels" if re.split(r"[_\-. ]", channel.lower())[-1] in _LABELS else "intensity"


def relative(root: Path, volume: VolumeFile) -> str:
    """Return how ``dataset.yaml`` names a volume: ``FILE`` or ``FILE[PART]``."""
    name = volume.path.relative_to(root).as_posix()
    return f"{name}[{volume.part}]" if volume.part else name


class Gathering:
    """The files of all scans; whatever is wrong with a scan is said once, and it is left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self.classes_expected = False
        """Whether a scan without a class is one that lacks it, even where no scan has any."""
        self._items: dict[str, _Item] = {}
        self._bad: dict[str, str] = {}

    def add(
        self,
        scan: str,
        channel: str,
        file: str,
        *,
        subject: str = "",
        class_name: str | None = None,
        split: Split | None = None,
        covariates: Mapping[str, float | str | None] | None = None,
        where: str = "",
    ) -> None:
        """Add a file of a scan.

        Args:
            scan: name of the scan.
            channel: what the file is of.
            file: ``FILE`` or ``FILE[PART]``, relative to the root.
            subject: whose scan it is; the scan's name when left out.
            class_name: of the scan, if known.
            split: of the scan, if known.
            covariates: of the scan; those of all its files count.
            where: what names the file, such as ``list.csv, line 3``.
        """
        said = f" ({where})" if where else ""
        if "\\" in file:
            self.bad(scan, f"names a file with Windows backslashes, {file}{said}; write / instead")
            return
        new = _Item(subject or scan, {}, class_name, split, {})
        item = self._items.setdefault(scan, new)
        item.covariates.update(covariates or {})
        if channel in item.files:
            self.bad(
                scan,
                f"is there more than once: both {item.files[channel]} and {file} are its "
                f"{channel}; keep one of them, or give the subjects different names",
            )
            return
        for what in ("subject", "class_name", "split"):
            one, other = getattr(item, what), getattr(new, what)
            if one != other:
                key = what.removesuffix("_name")
                self.bad(scan, f"has two values of {key}, {one} and {other}{said}; keep one")
        item.files[channel] = file
        if not self._exists(file):
            self.bad(scan, f"has no file {self.root / split_part(file)[0]}{said}; correct the name")

    def bad(self, scan: str, clause: str) -> None:
        """Leave a scan out; the clause goes on from its name. Only the first one counts."""
        self._bad.setdefault(scan, f"case {scan} {clause}.")

    def found(
        self, layout: str, channels: Sequence[str] = (), name: str = "", licence: str = ""
    ) -> Found:
        """Return all scans; ``channels`` gives the order of those that it names."""
        for scan in self._bad.keys() & self._items.keys():
            del self._items[scan]
        names = self._channels(channels)
        classes = {item.class_name for item in self._items.values()} - {None}
        for scan, item in self._items.items():
            missing = [channel for channel in names if channel not in item.files]
            if missing:
                beside = next(iter(item.files.values()))
                self.bad(
                    scan,
                    f"has no {' and no '.join(missing)} beside {beside}; add the file, or move the "
                    "case elsewhere",
                )
            elif item.class_name is None and (classes or self.classes_expected):
                first = next(iter(item.files.values()))
                self.bad(scan, f"({first}) has no class, though others have; give it one")
        entries = {
            scan: ScanEntry(
                subject=item.subject,
                files={channel: item.files[channel] for channel in names},
                class_name=item.class_name,
                split=item.split,
                covariates=item.covariates,
            )
            for scan, item in sorted(self._items.items())
            if scan not in self._bad
        }
        return Found(
            layout,
            {channel: ChannelEntry(kind=kind_of(channel)) for channel in names},
            entries,
            tuple(sorted({scan.class_name for scan in entries.values() if scan.class_name})),
            self.problems + [text for _, text in sorted(self._bad.items())],
            name,
            licence,
        )

    def _channels(self, first: Sequence[str]) -> list[str]:
        """Return the channels that at least half of the scans have, labels last."""
        counts = Counter(channel for item in self._items.values() for channel in item.files)
        order = [*(c for c in first if c in counts), *sorted(counts.keys() - {*first})]
        kept: list[str] = []
        for channel in order:
            if 2 * counts[channel] >= len(self._items):
                kept.append(channel)
                continue
            owner = min(scan for scan, item in self._items.items() if channel in item.files)
            self.problems.append(
                f"the channel {channel} is left out, as only {counts[channel]} of "
                f"{len(self._items)} cases have it, the first is {owner} "
                f"({self._items[owner].files[channel]}); move its files elsewhere, or add the "
                "others."
            )
        return sorted(kept, key=lambda channel: kind_of(channel) == "labels")

    def _exists(self, file: str) -> bool:
        try:
            return (self.root / PurePosixPath(split_part(file)[0])).exists()
        except (OSError, ValueError):  # a name that no disk can hold
            return False
