"""A missing modality, drawn from those that are there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.brats.open_scans import preprocessing_of
from prod9.data.intensity import IntensityScale
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.stored_volume import StoredVolume, volume_suffix
from prod9.data.volume_files.write import write_nifti
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
from prod9.shapes import Tokens
from prod9.sliding_window import encode


@dataclass(frozen=True)
class Translated:
    """What :func:`translate` wrote."""

    output: Path
    """The draw, or the mean of several."""
    picture: Path
    record: Path
    """JSON: sources, seed, settings and digests."""
    draws: tuple[Path, ...]
    """Each draw, where there are several."""
    deviation: Path | None
    """Voxel-wise standard deviation of several draws, in intensities."""


def drawn_volumes(
    generator: Model,
    volumes: Mapping[int, Tensor],
    target: int,
    settings: Settings,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Draw a modality from others.

    Args:
        generator: the model.
        volumes: (1, 1, D, H, W) in [0, 1], 0 outside the foreground, for each source modality.
        target: the modality that is drawn.
        settings: how.
        on_window: told (windows done, windows in all).

    Returns:
        float32 (K, 1, D, H, W) in [0, 1]: ``settings.samples`` draws.
    """
    drawn = drawn_tokens(generator, volumes, target, settings, on_window)
    d, h, w = next(iter(volumes.values())).shape[2:]
    return generator.decode(drawn, (d, h, w), settings.windows)


def drawn_tokens(
    generator: Model,
    volumes: Mapping[int, Tensor],
    target: int,
    settings: Settings,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Tokens:
    """Draw the tokens (K, *grid) of :func:`drawn_volumes`, whose arguments these are."""
    tokens = {m: encode(generator.tokenizer, v, settings.windows) for m, v in volumes.items()}
    first = next(iter(tokens.values()))
    grid, mask_id = first.shape[1:], generator.transformer.mask_id
    sources = torch.full((1, len(generator.class_names), *grid), mask_id)
    for modality, own in tokens.items():
        sources[:, modality] = own
    # Where no source has anything, neither has the target.
    known = background_cells(generator, list(volumes.values()))
    initial = torch.where(known, first, mask_id)
    return completed(generator, target, initial, settings, on_window, sources)


def read_sources(generator: Model, sources: Mapping[str, Path]) -> dict[int, NativeVolume]:
    """Read source scans, by modality.

    Raises:
        Prod9Error: an unknown modality, an unreadable or empty file, or files on two grids.
    """
    preprocessing = preprocessing_of(generator.tokenizer)
    prepared: dict[int, NativeVolume] = {}
    for name, path in sources.items():
        index = modality_index(generator, name, "--source")
        if index in prepared:
            raise Prod9Error(f"--source {name} is given twice; give each modality once.")
        prepared[index] = read_scan(path, preprocessing)
    first, *others = prepared.values()
    for other in others:
        require_same_grid(first.raw, other.raw)
    return prepared


def translate(
    generator: Model,
    sources: Mapping[str, Path],
    target: str,
    output: Path,
    settings: Settings,
    *,
    overwrite: bool,
    truth: Path | None = None,
    at: Sequence[int] | None = None,
) -> Translated:
    """Make the scan of a missing modality from those that are there.

    The result has the grid and affine of the first source, and its stored type where all sources
    share it (else float32). Intensities: 0 and 1 of the network become the mean of the sources'
    lower and upper percentiles, because nothing is known of the scale of a scan that was never
    made; background stays background.

    Args:
        generator: a model of scans.
        sources: file of each modality that is there.
        target: the modality that is wanted.
        output: ``.nii`` or ``.nii.gz``; pictures and maps go beside it.
        settings: how; with several samples ``output`` is their mean.
        overwrite: replace what is there.
        truth: the real scan of the target, if there is one; it is only shown in the picture.
        at: voxel of the network's grid through which the picture is cut; the head's middle when
            left out.

    Raises:
        Prod9Error: an unknown modality, unreadable or ill-fitting files, or results in the way.
    """
    index = modality_index(generator, target, "--target")
    paths = _translation_paths(output, settings.samples)
    inputs = [*sources.values(), *([truth] if truth else [])]
    results = [paths.output, paths.picture, paths.record, *paths.draws, paths.deviation]
    require_free(results, inputs, overwrite)
    prepared = read_sources(generator, sources)
    if index in prepared:
        raise Prod9Error(f"--target {target} is one of the sources; there is nothing to translate.")
    first = next(iter(prepared.values()))
    real = None
    if truth is not None:
        real = NativeVolume.read(truth, preprocessing_of(generator.tokenizer))
        require_same_grid(first.raw, real.raw)
    volumes = {modality: source.tensor() for modality, source in prepared.items()}
    with progress_bar(f"drawing {target}", "windows") as on_window:
        draws = drawn_volumes(generator, volumes, index, settings, on_window)[:, 0]
    scale = _shared_scale([source.scale for source in prepared.values()])
    foreground = np.logical_or.reduce([source.foreground for source in prepared.values()])
    if scale.background is None:
        foreground = None
    arrays = np.stack([first.restore(draw, scale, foreground) for draw in draws])
    types = {source.raw.dtype for source in prepared.values()}
    # The shared range need not fit the type of one source among several.
    dtype = first.raw.dtype if len(types) == 1 else np.dtype(np.float32)
    write_record(
        paths.record,
        generator,
        settings,
        sources={generator.class_names[m]: str(v.raw.path) for m, v in prepared.items()},
        target=generator.class_names[index],
    )
    _write_translation(first.raw, arrays, dtype, paths, overwrite)
    labelled = [(generator.class_names[m], v[0, 0]) for m, v in volumes.items()]
    if real is not None:
        labelled.append((f"{generator.class_names[index]}, true", real.tensor()[0, 0]))
    if foreground is not None:
        inside = torch.from_numpy(first.on_grid(foreground)) > 0
        draws = draws * inside  # as in the files
    panels = panels_of(labelled, generator.class_names[index], draws)
    save_figure(paths.picture, compare(panels, at or middle_of([v for _, v in labelled])))
    return paths


def _translation_paths(output: Path, samples: int) -> Translated:
    suffix = volume_suffix(output)
    if suffix == ".npy":
        raise Prod9Error(f"--output {output} must end in .nii or .nii.gz.")
    stem = output.name[: -len(suffix)]
    several = samples > 1
    return Translated(
        output=output,
        picture=output.with_name(f"{stem}.png"),
        record=output.with_name(f"{stem}.json"),
        draws=tuple(
            output.with_name(f"{stem}_draw-{k}{suffix}") for k in range(1, samples + 1) if several
        ),
        deviation=output.with_name(f"{stem}_std{suffix}") if several else None,
    )


def _shared_scale(scales: Sequence[IntensityScale]) -> IntensityScale:
    """Return the mean range of the sources'."""
    low, high = (float(np.mean([getattr(s, end) for s in scales])) for end in ("low", "high"))
    backgrounds = [s.background for s in scales if s.background is not None]
    return IntensityScale(low, high, backgrounds[0] if len(backgrounds) == len(scales) else None)


def _write_translation(
    like: StoredVolume, arrays: np.ndarray, dtype: np.dtype, paths: Translated, overwrite: bool
) -> None:
    def write(path: Path, array: np.ndarray, dtype: np.dtype) -> None:
        write_nifti(path, array, like.affine, dtype, overwrite=overwrite, header=like.header)

    for path, array in zip(paths.draws, arrays, strict=False):
        write(path, array, dtype)
    if paths.deviation is not None:
        write(paths.deviation, arrays.std(0), np.dtype(np.float32))
    write(paths.output, arrays.mean(0), dtype)  # last: with it everything is there
