"""A part of a scan, drawn anew."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from prod9.data.brats.open_scans import preprocessing_of
from prod9.data.native_space import NOTHING, NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, volume_suffix
from prod9.data.volume_files.write_inside import write_inside
from prod9.errors import Prod9Error
from prod9.inference.synthesis import (
    Settings,
    background_cells,
    completed,
    middle_of,
    modality_index,
    panels_of,
    read_scan,
    require_free,
    require_same_grid,
    write_record,
)
from prod9.model import Model
from prod9.montage import compare, save_figure
from prod9.runtime.progress import progress_bar
from prod9.sliding_window import encode


@dataclass(frozen=True)
class Inpainted:
    """What :func:`inpaint` wrote."""

    outputs: tuple[Path, ...]
    picture: Path
    record: Path
    """JSON: inputs, seed, settings and digests."""


def inpaint(
    generator: Model,
    scan: Path,
    mask: Path,
    modality: str,
    folder: Path,
    settings: Settings,
    *,
    overwrite: bool,
) -> Inpainted:
    """Draw anew what lies under a mask; all other voxels come back untouched, bit for bit.

    What is hidden must not leak: before encoding, masked voxels take the value of the nearest
    visible one, and the cells that the mask touches, and their neighbours, are drawn.

    Args:
        generator: a model of scans.
        scan: the volume.
        mask: on the same grid; every voxel that is not 0 is drawn.
        modality: of the scan.
        folder: for ``NAME_inpainted.nii.gz`` (or ``_inpainted-1`` to ``-K``) and a picture.
        settings: how.
        overwrite: replace what is there.

    Raises:
        Prod9Error: an unknown modality, unreadable or ill-fitting files, an empty mask, or results
            in the way.
    """
    label = modality_index(generator, modality, "--modality")
    suffix = volume_suffix(scan)
    stem = f"{scan.name[: -len(suffix)]}_inpainted"
    numbers = [""] if settings.samples == 1 else [f"-{k + 1}" for k in range(settings.samples)]
    result = Inpainted(
        tuple(folder / f"{stem}{number}{suffix}" for number in numbers),
        folder / f"{stem}.png",
        folder / f"{stem}.json",
    )
    require_free([*result.outputs, result.picture, result.record], [scan, mask], overwrite)
    preprocessing = preprocessing_of(generator.tokenizer)
    prepared = read_scan(scan, preprocessing)
    hidden = read_volume(mask)
    require_same_grid(prepared.raw, hidden)
    inside = hidden.array != 0
    if not inside.any() or inside.all():
        raise Prod9Error(
            f"{mask} marks {'nothing' if not inside.any() else 'every voxel'}; mark the part that "
            "is to be drawn with values other than 0."
        )
    # Anew, with a range of its own: what is hidden must not show in the percentiles either.
    visible = NativeVolume.of(_filled(prepared.raw, inside), preprocessing)
    volume = visible.tensor()
    tokens = encode(generator.tokenizer, volume, settings.windows)
    unknown = ~background_cells(generator, [torch.from_numpy(prepared.on_grid(inside))[None, None]])
    initial = torch.where(unknown, generator.transformer.mask_id, tokens)
    with progress_bar(f"in-painting {modality}", "windows") as on_window:
        drawn = completed(generator, label, initial, settings, on_window)
    sides = volume.shape[2:]
    draws = generator.decode(drawn, (sides[0], sides[1], sides[2]), settings.windows)[:, 0]
    write_record(
        result.record, generator, settings, input=str(scan), mask=str(mask), modality=modality
    )
    shown: list[Tensor] = []
    for path, draw in zip(result.outputs, draws, strict=True):
        restored = visible.restore(draw * (draw > NOTHING))
        write_inside(path, scan, restored, inside, overwrite=overwrite)
        whole = replace(prepared.raw, array=np.where(inside, restored, prepared.raw.array))
        shown.append(torch.from_numpy(replace(prepared, raw=whole).array()))
    before = torch.from_numpy(prepared.array())
    there = torch.from_numpy(prepared.on_grid(inside)) > 0
    given = [("scan", before), ("without the masked part", before * ~there)]
    panels = panels_of(given, modality, torch.stack(shown))
    save_figure(result.picture, compare(panels, middle_of([there.float()])))
    return result


def _filled(raw: StoredVolume, inside: np.ndarray) -> StoredVolume:
    """Return the scan with each masked voxel replaced by the nearest visible one."""
    nearest = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    return replace(raw, array=raw.array[tuple(nearest)])
