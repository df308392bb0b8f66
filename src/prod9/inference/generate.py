"""Generated volumes as files: NIfTI, a montage, a manifest.

``unfinished.json`` is written before the first volume and says what decides every one of them; it
is removed when ``manifest.json`` is there. A folder with it can be resumed. Only volumes that one
of the two files names are ever replaced.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prod9.data.volume_files.read import open_nifti, read_content, read_volume
from prod9.data.volume_files.write import write_nifti
from prod9.errors import Prod9Error
from prod9.files import require_writable, sync, write_text
from prod9.inference.labelled import (
    EncodedMask,
    decoded_maps,
    images_on_mask,
    label_codes,
    sample_subjects,
    stored_type,
)
from prod9.model import Model
from prod9.montage import by_class, montage, save_figure
from prod9.own_files import read_record, refuse_foreign, remove_own
from prod9.runtime.console import say
from prod9.runtime.distributed import barrier, is_main, of_main, share_of, world_size
from prod9.runtime.progress import progress_bar
from prod9.sample_request import SampleRequest

_MONTAGE_COLUMNS = 6
MANIFEST, UNFINISHED, MONTAGE = "manifest.json", "unfinished.json", "montage.png"
MAPS = "labels"
"""Folder, inside the set's, of label maps that have the names of their images."""
_KEYS = {"prod9", "seed", "classes"}
"""What either record holds at least."""
_LATE_SECONDS = 120.0
"""How long a shared disk may take to show what another machine has written."""


def generation_affine(sides: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Voxel-to-mm affine of a volume with RAS+ axes, centred on the origin."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-(n - 1) / 2 * s for n, s in zip(sides, spacing, strict=True)]
    return affine


@dataclass(frozen=True)
class GeneratedSet:
    """A set of volumes in a folder, one file each, sampled in batches."""

    folder: Path
    settings: Mapping[str, Any]
    """What decides the volumes, as plain data, with ``classes`` and ``batch_size``."""
    labels: Sequence[int]

    @cached_property
    def files(self) -> list[Path]:
        """The volumes' paths."""
        return [self.folder / name for name in _names(self.labels, self.settings["classes"])]

    def claim(self, *, resume: bool, overwrite: bool) -> None:
        """Begin the set, or resume it; called by every process of a distributed run."""
        if is_main():
            self._claim(resume=resume, overwrite=overwrite)
        barrier()

    def _claim(self, *, resume: bool, overwrite: bool) -> None:
        require_writable(self.folder)
        manifest, unfinished = self.folder / MANIFEST, self.folder / UNFINISHED
        record = {**self.settings, "labels": list(self.labels)}
        if resume and (manifest.exists() or unfinished.exists()):
            _require_same(manifest if manifest.exists() else unfinished, record)
            count = len(_volumes(self.folder))
            say(f"{self.folder}: {count} of {len(self.labels)} volumes are there; going on")
        elif own := own_names(self.folder):
            if not overwrite and manifest.exists():
                raise Prod9Error(
                    f"{self.folder} already holds generated volumes; pass --overwrite or another "
                    "--output."
                )
            if not overwrite:
                raise Prod9Error(
                    f"{self.folder} holds an unfinished set ({len(_volumes(self.folder))} volumes "
                    "are there); go on with --resume, or begin anew with --overwrite."
                )
            # What is left of a complete set is an unfinished one; its record goes last.
            if manifest.exists():
                manifest.replace(unfinished)
            names = sorted(own - {MANIFEST, UNFINISHED})
            remove_own(self.folder, [self.folder / name for name in names])
        elif self.settings.get("with_labels"):
            refuse_foreign(self.folder / MAPS / path.name for path in self.files)
        if not manifest.exists():
            write_text(unfinished, json.dumps(record, indent=2) + "\n")

    def missing_batches(self) -> list[int]:
        """Return the numbers of the batches of which a volume is missing or damaged.

        Called by every process of a distributed run. The main one decides: on a shared disk another
        may not see what is there.
        """
        return of_main(self._missing_batches() if is_main() else [])

    def _missing_batches(self) -> list[int]:
        missing: set[int] = set()
        for index, path in enumerate(self.files):
            if path.exists() and not _whole(path):
                say(f"{path} is torn; generating it again")
                path.unlink(missing_ok=True)
            if not path.exists():
                missing.add(index // self.settings["batch_size"])
        return sorted(missing)

    def finish(self) -> None:
        """Write the manifest: a folder with one is complete, and on the disk."""
        for path in self.files:  # together, not each as it was written: one wait, not hundreds
            sync(path)
        names = self.settings["classes"]
        samples = [
            {"file": path.name, "class": names[label], "label": label, "index": index}
            for index, (path, label) in enumerate(zip(self.files, self.labels, strict=True))
        ]
        manifest = {**self.settings, "samples": samples}
        write_text(self.folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        (self.folder / UNFINISHED).unlink(missing_ok=True)

    def require_complete(self) -> None:
        """Prove that every volume is there, before the set is called complete."""
        until = time.monotonic() + (_LATE_SECONDS if world_size() > 1 else 0)
        lost = self.files
        while lost := [path for path in lost if not path.exists()]:
            if time.monotonic() >= until:
                raise Prod9Error(
                    f"{len(lost)} of {len(self.labels)} volumes are not there, the first is "
                    f"{lost[0]}; all processes must share the disk of --output. Generate what is "
                    "missing with --resume."
                )
            time.sleep(0.5)


def _require_same(path: Path, mine: Mapping[str, Any]) -> None:
    """Refuse to resume another set than was begun."""
    theirs = read_record(path, _KEYS)
    if theirs is None:
        raise Prod9Error(f"{path} is damaged, or not prod9's; choose another --output.")
    with suppress(TypeError, KeyError):  # a manifest has samples
        theirs["labels"] = [sample["label"] for sample in theirs["samples"]]
    for name, value in mine.items():
        if theirs.get(name) != value:
            both = f" ({theirs.get(name)}, not {value})"
            both = both if isinstance(value, str | int) and len(both) < 150 else ""
            raise Prod9Error(
                f"{path}: the set was begun with another {name.replace('_', ' ')}{both}; give "
                "what it was begun with, or pass --overwrite or another --output."
            )


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
            names = _names(labels, record["classes"])
            own |= {mark, MONTAGE, *names}
            if record.get("with_labels"):
                own |= {f"{MAPS}/{name}" for name in names}
    needed = [folder / name for name in (MANIFEST, UNFINISHED, MONTAGE)]
    refuse_foreign(path for path in (*needed, *_volumes(folder)) if path.name not in own)
    return own


def _whole(path: Path) -> bool:
    with suppress(Prod9Error):
        read_content(path, open_nifti(path))
        return True
    return False


def generate_files(
    model: Model,
    request: SampleRequest,
    folder: Path,
    *,
    overwrite: bool,
    resume: bool = False,
    on_volume: Callable[[Tensor], None] = lambda volume: None,
    mask: EncodedMask | None = None,
    with_labels: bool = False,
) -> None:
    """Generate the volumes of a request and write them to ``folder``.

    Writes ``NNNN_CLASS.nii.gz`` (uint8, axes RAS+, the training data's spacing), ``montage.png``
    and ``manifest.json``. The processes of a distributed run share the batches.

    Args:
        model: the model.
        request: which volumes, and how.
        folder: for the files.
        overwrite: replace a set that is there.
        resume: only generate the batches of which a volume is missing; the set is the same.
        on_volume: called with each volume (1, D, H, W) that this process generates.
        mask: generate images of this label map, on its grid; the labels of ``request`` are as
            :func:`prod9.inference.labelled.by_subject` returns them, and so with the next.
        with_labels: sample a label map for each subject too: ``labels/`` has a map for each image.

    Raises:
        Prod9Error: the folder holds volumes already (with ``resume``: of another set), or cannot be
            written.
    """
    spec = model.tokenizer.spec
    sides = request.shape or spec.volume_shape
    affine = generation_affine(sides, spec.spacing_mm)
    if mask is not None:
        sides, affine = mask.placement.shape, mask.stored.affine
    if mask is not None or with_labels:  # a batch holds whole subjects
        each = len({label % len(model.channels) for label in request.labels})
        request = replace(request, batch_size=max(1, request.step // each) * each)
    settings = {
        **model.record_of(request),
        "batch_size": request.step,
        "shape": list(sides),
        "transformer_config": model.spec.config_yaml,
        "classes": list(model.class_names),
        "tokens_shape": list(model.tokenizer.grid(sides)),
    }
    if mask is not None:
        content = np.ascontiguousarray(mask.stored.array).tobytes() + affine.tobytes()
        if len(model.label_channels) > 1:
            settings["mask_channel"] = mask.codes.channel
        settings["mask"] = hashlib.sha256(content).hexdigest()
    if with_labels:
        settings["with_labels"] = True
    if request.covariates:
        settings["covariates"] = list(request.covariates)
    wanted = GeneratedSet(folder, settings, request.labels)
    wanted.claim(resume=resume, overwrite=overwrite)
    own = share_of(wanted.missing_batches())
    with progress_bar("generating", "batches") as tell:
        tell(0, len(own))
        for done, number in enumerate(own):

            def on_window(n: int, total: int, done: int = done) -> None:
                tell(done + n / total, len(own))

            first = number * request.step
            if mask is None and not with_labels:
                volumes = model.sample_volumes(request, number, on_window)
            else:
                tokens, maps = sample_subjects(model, request, number, mask, on_window)
                if mask is not None:
                    volumes = images_on_mask(model, tokens, mask, request)
                else:
                    volumes = model.decode(tokens.to(model.device), sides, request.windows)
                if maps is not None:
                    _write_maps(model, wanted, first, len(volumes), maps, sides, affine)
            # Written at once: many whole brains do not fit in memory.
            for path, volume in zip(wanted.files[first:], volumes, strict=False):
                voxels = (volume[0] * 255).round().to(torch.uint8).numpy()
                write_nifti(path, voxels, affine, np.uint8, overwrite=True, durable=False)
                on_volume(volume)
    barrier()
    if is_main():
        wanted.require_complete()
        _draw_montage(wanted, model.class_names, request.seed)
        wanted.finish()
    barrier()


def _write_maps(
    model: Model,
    wanted: GeneratedSet,
    first: int,
    count: int,
    tokens: Tensor,
    sides: tuple[int, int, int],
    affine: np.ndarray,
) -> None:
    """Write the label map of each of ``count`` images from ``first``, before the images."""
    codes = label_codes(model)
    maps = decoded_maps(codes, tokens, sides)
    dtype = stored_type(codes.values)
    for index, path in enumerate(wanted.files[first : first + count]):
        own = maps[index * len(maps) // count]
        target = wanted.folder / MAPS / path.name
        write_nifti(target, own, affine, dtype, overwrite=True, durable=False)


def _draw_montage(wanted: GeneratedSet, class_names: tuple[str, ...], seed: int) -> None:
    """Show the first volumes of every class, as they are in the files."""
    shown: list[int] = []
    volumes: list[Tensor] = []
    for path, label in zip(wanted.files, wanted.labels, strict=True):
        if shown.count(label) < _MONTAGE_COLUMNS:
            shown.append(label)
            volumes.append(torch.from_numpy(read_volume(path).array)[None] / 255)
    rows = by_class(torch.stack(volumes), torch.tensor(shown), class_names, _MONTAGE_COLUMNS)
    save_figure(wanted.folder / MONTAGE, montage(rows, title=f"generated, seed {seed}"))
