"""A missing channel, sampled from those that are there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.brats.open_scans import preprocessing_of
from prod9.data.intensity import IntensityScale
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, volume_suffix
from prod9.data.volume_files.write import write_nifti
from prod9.errors import Prod9Error
from prod9.inference.completion import (
    background_cells,
    middle_of,
    panels_of,
    require_free,
    require_same_grid,
    to_network,
)
from prod9.inference.record import write_record
from prod9.model import Model
from prod9.montage import compare, save_figure
from prod9.runtime.progress import progress_bar
from prod9.sample_request import SampleRequest
from prod9.shapes import Tokens
from prod9.sliding_window import encode

OnWindow = Callable[[int, int], None]


@dataclass(frozen=True)
class Translation:
    """A channel that was sampled from others."""

    sources: Mapping[int, NativeVolume]
    """The volumes it was sampled from, by channel."""
    samples: np.ndarray
    """float32 (K, D, H, W): intensities, on the grid of the first source."""
    on_grid: Tensor
    """The same in [0, 1] on the network's grid."""


@dataclass(frozen=True)
class TranslatedFiles:
    """What :func:`translate_files` wrote."""

    output: Path
    """The sample, or the mean of several."""
    picture: Path
    record: Path
    """JSON: sources, seed, settings and digests."""
    samples: tuple[Path, ...]
    """Each sample, where there are several."""
    deviation: Path | None
    """Voxel-wise standard deviation of several samples, in intensities."""

    @property
    def all(self) -> list[Path]:
        """Return every file."""
        paths = (self.output, *self.samples, self.deviation, self.picture, self.record)
        return [path for path in paths if path is not None]


def translated_tokens(
    model: Model,
    volumes: Mapping[int, Tensor],
    request: SampleRequest,
    on_window: OnWindow = lambda done, total: None,
) -> Tokens:
    """Sample the tokens (K, *grid) of a channel, of which ``request`` has the labels.

    Args:
        model: the model.
        volumes: (1, 1, D, H, W) in [0, 1], 0 outside the foreground, of each source channel.
        request: the target channel, once for each of K samples, and how.
        on_window: told (windows done, windows in all).
    """
    tokens = {m: encode(model.tokenizer, v, request.windows) for m, v in volumes.items()}
    first = next(iter(tokens.values()))
    mask_id = model.transformer.mask_id
    sources = torch.full((1, len(model.class_names), *first.shape[1:]), mask_id)
    for channel, own in tokens.items():
        sources[:, channel] = own
    # Where no source has anything, neither has the target.
    known = background_cells(model, list(volumes.values()))
    initial = torch.where(known, first, mask_id)
    return model.sample(replace(request, initial=initial, sources=sources), on_window=on_window)


def translate(
    model: Model,
    sources: Mapping[int, StoredVolume],
    request: SampleRequest,
    on_window: OnWindow = lambda done, total: None,
) -> Translation:
    """Sample a missing channel from those that are there.

    0 and 1 of the network become the mean of the sources' lower and upper percentiles, because
    nothing is known of the intensities of a scan that was never made; background stays background.

    Args:
        model: a model of scans.
        sources: volume of each channel that is there, all on one grid.
        request: the target channel, once for each of K samples, and how.
        on_window: told (windows done, windows in all).

    Raises:
        Prod9Error: the target is among the sources; a volume is empty or on another grid.
    """
    target, names = request.labels[0], model.class_names
    if target in sources:
        raise Prod9Error(f"the target {names[target]} is one of the sources; give another.")
    preprocessing = preprocessing_of(model.tokenizer)
    native = {channel: to_network(each, preprocessing) for channel, each in sources.items()}
    first, *others = native.values()
    for other in others:
        require_same_grid(first.raw, other.raw)
    volumes = {channel: each.tensor() for channel, each in native.items()}
    tokens = translated_tokens(model, volumes, request, on_window)
    d, h, w = next(iter(volumes.values())).shape[2:]
    samples = model.decode(tokens, (d, h, w), request.windows)[:, 0]
    scale = _mean_scale([each.scale for each in native.values()])
    if scale.background is None:
        stored = np.stack([first.restore(each, scale) for each in samples])
        return Translation(native, stored, samples)
    foreground = np.logical_or.reduce([each.foreground for each in native.values()])
    stored = np.stack([first.restore(each, scale, foreground) for each in samples])
    inside = torch.from_numpy(first.on_grid(foreground)) > 0
    return Translation(native, stored, samples * inside)


def _mean_scale(scales: Sequence[IntensityScale]) -> IntensityScale:
    low, high = (float(np.mean([getattr(s, end) for s in scales])) for end in ("low", "high"))
    backgrounds = [s.background for s in scales if s.background is not None]
    return IntensityScale(low, high, backgrounds[0] if len(backgrounds) == len(scales) else None)


def translate_files(
    model: Model,
    sources: Mapping[str, Path],
    output: Path,
    request: SampleRequest,
    *,
    overwrite: bool,
    truth: Path | None = None,
    at: Sequence[int] | None = None,
) -> TranslatedFiles:
    """Run :func:`translate` on files; write the result, a picture and a record.

    The result has the grid and affine of the first source, and its stored type where all sources
    share it (else float32); of several samples it is the mean.

    Args:
        model: a model of scans.
        sources: file of each channel that is there.
        output: ``.nii`` or ``.nii.gz``; pictures and maps go beside it.
        request: the target channel, once for each sample, and how.
        overwrite: replace what is there.
        truth: the real volume of the target, if there is one; it is only shown in the picture.
        at: voxel of the network's grid through which the picture is cut; the middle of what is
            seen when left out.

    Raises:
        Prod9Error: as :func:`translate`; an unknown channel, unreadable files, results in the way.
    """
    names, target = model.class_names, request.labels[0]
    files = _files_beside(output, len(request.labels))
    require_free(files.all, [*sources.values(), *([truth] if truth else [])], overwrite)
    preprocessing_of(model.tokenizer)  # a model of something else is refused before it reads
    paths = {model.label_of(name): path for name, path in sources.items()}
    if len(paths) < len(sources):
        raise Prod9Error(f"a source is given twice in {', '.join(sources)}; give each once.")
    stored = {channel: read_volume(path) for channel, path in paths.items()}
    with progress_bar(f"sampling {names[target]}", "windows") as on_window:
        found = translate(model, stored, request, on_window)
    first = next(iter(stored.values()))
    types = {each.dtype for each in stored.values()}
    # The shared range need not fit the type of one source among several.
    dtype = first.dtype if len(types) == 1 else np.dtype(np.float32)
    inputs = {names[channel]: str(path) for channel, path in paths.items()}
    shown = [(names[c], torch.from_numpy(each.array())) for c, each in found.sources.items()]
    if truth is not None:
        real = NativeVolume.of(read_volume(truth), preprocessing_of(model.tokenizer))
        require_same_grid(first, real.raw)
        shown.append((f"{names[target]}, true", torch.from_numpy(real.array())))
    write_record(files.record, model, request, sources=inputs, target=names[target])

    def write(path: Path, array: np.ndarray, dtype: np.dtype) -> None:
        write_nifti(path, array, first.affine, dtype, overwrite=overwrite, header=first.header)

    for path, array in zip(files.samples, found.samples, strict=False):
        write(path, array, dtype)
    if files.deviation is not None:
        write(files.deviation, found.samples.std(0), np.dtype(np.float32))
    write(files.output, found.samples.mean(0), dtype)  # last: with it everything is there
    panels = panels_of(shown, names[target], found.on_grid)
    save_figure(files.picture, compare(panels, at or middle_of([volume for _, volume in shown])))
    return files


def _files_beside(output: Path, samples: int) -> TranslatedFiles:
    suffix = volume_suffix(output)
    if suffix == ".npy":
        raise Prod9Error(f"--output {output} must end in .nii or .nii.gz.")
    stem = output.name[: -len(suffix)]
    numbers = range(1, samples + 1) if samples > 1 else ()
    return TranslatedFiles(
        output=output,
        picture=output.with_name(f"{stem}.png"),
        record=output.with_name(f"{stem}.json"),
        samples=tuple(output.with_name(f"{stem}_draw-{k}{suffix}") for k in numbers),
        deviation=output.with_name(f"{stem}_std{suffix}") if samples > 1 else None,
    )
