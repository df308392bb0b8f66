"""A part of a volume, sampled anew: under a mask, or where its label map was edited."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from prod9.coarse import coarse_tokens, whole_cells
from prod9.data.native_space import NOTHING, NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, result_suffix, volume_stem
from prod9.data.volume_files.write import write_inside, write_volume
from prod9.errors import Prod9Error
from prod9.inference.completion import (
    CompletedFiles,
    background_cells,
    middle_of,
    require_same_grid,
    to_network,
)
from prod9.inference.labelled import EncodedMask, encode_mask
from prod9.model import Model
from prod9.outpainting import OnWindow
from prod9.runtime.progress import progress_bar
from prod9.sample_request import SampleRequest
from prod9.sliding_window import encode


@dataclass(frozen=True)
class Edit:
    """A label map before and after it was edited, both on the grid of the scan."""

    before: StoredVolume
    after: StoredVolume
    channel: str | None = None
    """Of labels; found as :func:`encode_mask` does when left out."""

    def place(self, model: Model, scan: StoredVolume) -> tuple[StoredVolume, EncodedMask]:
        """Return a mask of the tokens' cells in which the map was changed, and the new map.

        Raises:
            Prod9Error: another grid, unknown labels, or maps that are alike.
        """
        require_same_grid(scan, self.before)
        require_same_grid(scan, self.after)
        encoded = encode_mask(model, self.after, self.channel, may_be_empty=True)
        changed = self.before.array != self.after.array
        if not changed.any():
            raise Prod9Error(
                f"{self.before.path} and {self.after.path} are alike; there is nothing to draw."
            )
        placement = encoded.placement
        on_grid = torch.from_numpy(placement.apply(changed.astype(np.float32)))[None, None]
        cells = whole_cells(model.tokenizer, on_grid)[0, 0].numpy()
        # (Nearest neighbours may miss a voxel of a finer scan.)
        inside = placement.invert_nearest(cells) | changed
        return replace(self.after, array=inside.astype(np.float32)), encoded


def inpaint(
    model: Model,
    scan: StoredVolume,
    mask: StoredVolume,
    request: SampleRequest,
    on_window: OnWindow = lambda done, total: None,
    labels: EncodedMask | None = None,
) -> np.ndarray:
    """Sample anew what lies under a mask.

    What is hidden must not leak: before encoding, masked voxels take the value of the nearest
    visible one; then the cells that the mask touches, and their neighbours, are sampled.

    Args:
        model: a model of scans.
        scan: the volume.
        mask: on the same grid; every voxel that is not 0 is sampled.
        request: the channel of the scan, once for each of K samples, and how.
        on_window: told of the progress.
        labels: what is to be there, of the whole scan.

    Returns:
        float32 (K, D, H, W): intensities, on the scan's grid; outside the mask the scan's own.

    Raises:
        Prod9Error: another grid; a mask of nothing or everything; an empty scan.
    """
    channel = model.channels[request.labels[0] % len(model.channels)]
    if channel not in model.images:
        raise Prod9Error(f"{channel} is a channel of labels; change it with `prod9 edit`.")
    native = to_network(scan, model.tokenizer, channel)
    require_same_grid(scan, mask)
    inside = mask.array != 0
    if not inside.any() or inside.all():
        raise Prod9Error(
            f"{mask.path} marks {'nothing' if not inside.any() else 'every voxel'}; mark the part "
            "that is to be sampled with values other than 0."
        )
    # With a range of its own: what is hidden must not show in the percentiles either.
    visible = NativeVolume.of(_filled(scan, inside), model.tokenizer.spec.preprocessing, channel)
    volume = visible.tensor()
    tokens = encode(model.tokenizer, volume, request.windows)
    hidden = torch.from_numpy(native.on_grid(inside))[None, None]
    unknown = ~background_cells(model, [hidden])
    initial = torch.where(unknown, model.transformer.mask_id, tokens)
    d, h, w = volume.shape[2:]
    request = replace(request, initial=initial, shape=(d, h, w))
    if factor := model.spec.coarse_factor:
        hidden = F.max_pool3d(hidden, factor, ceil_mode=True)
        coarse = coarse_tokens(model.tokenizer, volume, factor, request.windows)
        unknown = ~background_cells(model, [hidden])
        coarse = torch.where(unknown, model.transformer.mask_id, coarse)
        request = replace(request, coarse=coarse)
    if labels is not None:
        sources = torch.full((1, len(model.channels), *tokens.shape[1:]), model.transformer.mask_id)
        sources[:, [*model.label_channels[labels.codes.channel]]] = labels.tokens
        request = replace(request, sources=sources)
    sampled = model.sample(request, on_window=on_window)
    samples = model.decode(sampled, (d, h, w), request.windows)[:, 0]
    restored = (visible.restore(each * (each > NOTHING)) for each in samples)
    return np.stack([np.where(inside, each, scan.array) for each in restored])


def _filled(stored: StoredVolume, inside: np.ndarray) -> StoredVolume:
    """Return the volume with each masked voxel replaced by the nearest visible one."""
    from scipy import ndimage  # a fifth of a second, and most commands inpaint nothing

    nearest = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    return replace(stored, array=stored.array[tuple(cast(np.ndarray, nearest))])


def inpaint_files(
    model: Model,
    scan: Path,
    mask: Path | None,
    folder: Path,
    request: SampleRequest,
    *,
    overwrite: bool,
    labels: tuple[Path, Path, str | None] | None = None,
) -> CompletedFiles:
    """Run :func:`inpaint` on files; every voxel outside the mask stays the same, bit for bit.

    In place of a mask, ``labels`` are a label map before and after an :class:`Edit`, and its
    channel or None.

    Writes ``NAME_inpainted.nii.gz`` (or ``_inpainted-1`` to ``-K``), a picture and a record to
    ``folder``. Scans of formats that are not written are answered as ``.nii.gz``, in which voxels
    outside the mask are the same as float32.

    Raises:
        Prod9Error: as :func:`inpaint`; unreadable files, or results in the way.
    """
    suffix, count = result_suffix(scan), len(request.labels)
    stem = f"{volume_stem(scan)}_inpainted"
    numbers = [""] if count == 1 else [f"-{k + 1}" for k in range(count)]
    files = CompletedFiles(
        tuple(folder / f"{stem}{number}{suffix}" for number in numbers),
        folder / f"{stem}.png",
        folder / f"{stem}.json",
    )
    given = [mask] if mask is not None else []
    given += [*labels[:2]] if labels is not None else []
    files.require_free([scan, *given], overwrite)
    stored, encoded = read_volume(scan), None
    if labels is not None:
        before, after, channel = labels
        edit = Edit(read_volume(before), read_volume(after), channel)
        hidden, encoded = edit.place(model, stored)
    else:
        assert mask is not None
        hidden = read_volume(mask)
    name = model.channels[request.labels[0] % len(model.channels)]
    with progress_bar(f"in-painting {name}", "windows") as on_window:
        results = inpaint(model, stored, hidden, request, on_window, encoded)
    inputs = {"mask": str(mask)} if labels is None else {"labels": [*map(str, given)]}
    record = files.record_of(model, request, input=str(scan), modality=name, **inputs)
    files.write_record(record)
    inside = hidden.array != 0
    for path, result in zip(files.results, results, strict=True):
        if scan.is_dir() or not scan.name.lower().endswith(suffix):
            write_volume(path, result, like=stored, overwrite=overwrite)
        else:
            write_inside(path, scan, result, inside, overwrite=overwrite)
    native = NativeVolume.of(stored, model.tokenizer.spec.preprocessing, name)
    # All in the intensities of the whole scan.
    shown = [replace(native, raw=replace(stored, array=result)).array() for result in results]
    whole, there = torch.from_numpy(native.array()), torch.from_numpy(native.on_grid(inside)) > 0
    panels = [("scan", whole), ("without the masked part", whole * ~there)]
    files.draw_picture(panels, name, torch.from_numpy(np.stack(shown)), middle_of([there.float()]))
    return files
