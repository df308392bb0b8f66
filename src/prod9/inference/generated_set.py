"""The folder of a generated set while it is not finished: what was asked for, and what is there.

``unfinished.json`` is written before the first volume and says what decides every one of them; it
is removed when ``manifest.json`` is there. A folder with it can be gone on with. Only volumes that
one of the two names are ever replaced.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prod9.data.volume_files.read import open_nifti, read_content
from prod9.errors import Prod9Error
from prod9.files import require_writable, write_text
from prod9.own_files import read_record, refuse_foreign, remove_own
from prod9.runtime.console import say
from prod9.runtime.distributed import any_of, barrier, is_main, share_of, world_size

MANIFEST, UNFINISHED, MONTAGE = "manifest.json", "unfinished.json", "montage.png"
_KEYS = {"prod9", "seed", "classes"}
"""What either record holds at least."""
_LATE_SECONDS = 120.0
"""How long a shared disk may take to show what another machine has written."""


@dataclass(frozen=True)
class GeneratedSet:
    """A set of volumes in a folder, one file each, drawn in batches."""

    folder: Path
    settings: Mapping[str, Any]
    """What decides the volumes, as plain data."""
    labels: Sequence[int]
    class_names: Sequence[str]
    batch_size: int

    @property
    def files(self) -> list[Path]:
        """Return the volumes' paths."""
        return [self.folder / name for name in _names(self.labels, self.class_names)]

    def _record(self) -> dict[str, Any]:
        return {**self.settings, "labels": list(self.labels)}

    def claim(self, *, resume: bool, overwrite: bool) -> None:
        """Begin the set, or go on with it. Called by every process of a distributed run.

        Raises:
            Prod9Error: the folder holds volumes and neither is allowed; or, with ``resume``, those
                of something else.
        """
        if is_main():
            self._claim(resume=resume, overwrite=overwrite)
        barrier()

    def _claim(self, *, resume: bool, overwrite: bool) -> None:
        require_writable(self.folder)
        there = _volumes(self.folder)
        marks = [self.folder / name for name in (MANIFEST, UNFINISHED)]
        known = [mark for mark in marks if mark.exists()]
        if resume and not overwrite and known:
            self._require_same(known, there)
        elif (own := own_names(self.folder)) and overwrite:
            # What is left of a complete set is an unfinished one; its record goes last.
            if marks[0].exists():
                marks[0].replace(marks[1])
            names = sorted(own - {MANIFEST, UNFINISHED})
            remove_own(self.folder, [self.folder / name for name in names])
        elif resume:
            pass  # nothing is there yet
        elif marks[1].exists() and not marks[0].exists():
            raise Prod9Error(
                f"{self.folder} holds an unfinished set ({len(there)} volumes are there); go on "
                "with --resume, or begin anew with --overwrite."
            )
        elif there or marks[0].exists():
            raise Prod9Error(
                f"{self.folder} already holds generated volumes; pass --overwrite or another "
                "--output."
            )
        if not marks[0].exists():
            write_text(marks[1], json.dumps(self._record(), indent=2) + "\n")

    def _require_same(self, marks: Sequence[Path], there: Sequence[Path]) -> None:
        """Refuse to go on with another set than was begun."""
        theirs = read_record(marks[0], _KEYS)
        if theirs is None:
            raise Prod9Error(f"{marks[0]} is damaged, or not prod9's; choose another --output.")
        if "samples" in theirs:  # a manifest: the set is complete
            with suppress(TypeError, KeyError):
                theirs["labels"] = [sample["label"] for sample in theirs["samples"]]
        for name, mine in self._record().items():
            if theirs.get(name) != mine:
                both = f" ({theirs.get(name)}, not {mine})"
                both = both if isinstance(mine, str | int) and len(both) < 150 else ""
                raise Prod9Error(
                    f"{marks[0]}: the set was begun with another {name.replace('_', ' ')}{both}; "
                    "give what it was begun with, or pass --overwrite or another --output."
                )
        say(f"{self.folder}: {len(there)} of {len(self.labels)} volumes are there; going on")

    def missing_batches(self) -> list[int]:
        """Return the numbers of the batches of which a volume is missing; the same everywhere.

        Called by every process of a distributed run. A torn file is removed: rename is atomic, but
        a machine that goes down may forget what was in the file.
        """
        # Judged together: on a shared disk one process may see what another does not, and lists of
        # their own would leave a batch to nobody. The main one looks at all: it has claimed them.
        files = self.files
        missing = [is_main() and not path.exists() for path in files]
        for index in share_of(range(len(files))):
            path = files[index]
            if path.exists() and not _whole(path):
                say(f"{path} is torn; drawing it again")
                path.unlink(missing_ok=True)
            missing[index] |= not path.exists()
        missing = any_of(missing)
        starts = range(0, len(missing), self.batch_size)
        return [
            n for n, start in enumerate(starts) if any(missing[start : start + self.batch_size])
        ]

    def require_complete(self) -> None:
        """Prove that every volume is there, before the set is called complete.

        Raises:
            Prod9Error: one is not; names the first.
        """
        lost = [path for path in self.files if not path.exists()]
        until = time.monotonic() + (_LATE_SECONDS if world_size() > 1 else 0)
        while lost and time.monotonic() < until:
            time.sleep(0.5)
            lost = [path for path in lost if not path.exists()]
        if lost:
            raise Prod9Error(
                f"{len(lost)} of {len(self.labels)} volumes are not there, the first is {lost[0]}; "
                "all processes must share the disk of --output. Draw what is missing with --resume."
            )

    def finish(self) -> None:
        """Write the manifest: a folder with one is complete."""
        samples = [
            {"file": path.name, "class": self.class_names[label], "label": label, "index": index}
            for index, (path, label) in enumerate(zip(self.files, self.labels, strict=True))
        ]
        manifest = {**self.settings, "samples": samples}
        write_text(self.folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        (self.folder / UNFINISHED).unlink(missing_ok=True)


def _names(labels: Sequence[int], class_names: Sequence[str]) -> list[str]:
    digits = max(4, math.ceil(math.log10(len(labels) + 1)))
    return [
        f"{n:0{digits}d}_{class_names[label].replace('/', '-')}.nii.gz"
        for n, label in enumerate(labels)
    ]


def _volumes(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.nii.gz") if not path.name.startswith("."))


def own_names(folder: Path) -> set[str]:
    """Return the names of the set in ``folder``, as its manifest or its unfinished record has them.

    Raises:
        Prod9Error: there is a volume that neither names, or a file under a name that a set needs.
    """
    own: set[str] = set()
    for mark in (MANIFEST, UNFINISHED):
        record = read_record(folder / mark, _KEYS) or {}
        with suppress(KeyError, TypeError, IndexError, AttributeError):
            samples = record.get("samples")  # a manifest has them
            labels = record["labels"] if samples is None else [each["label"] for each in samples]
            own |= {mark, MONTAGE, *_names(labels, record["classes"])}
    needed = [folder / name for name in (MANIFEST, UNFINISHED, MONTAGE)]
    refuse_foreign(path for path in (*needed, *_volumes(folder)) if path.name not in own)
    return own


def _whole(path: Path) -> bool:
    with suppress(Prod9Error):
        read_content(path, open_nifti(path))
        return True
    return False
