"""Scans made from scans: a missing modality (translation), or a part of one (in-painting)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress
from scipy import ndimage
from torch import Tensor

from prod9.build.tokens import preprocessing_of
from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.data.brats import grid_distance_mm
from prod9.data.prepared import NOTHING, PreparedVolume
from prod9.data.volume_io import (
    IntensityScale,
    RawVolume,
    read_volume,
    volume_suffix,
    write_inside,
    write_nifti,
)
from prod9.errors import UserError
from prod9.generator import Generator
from prod9.montage import Panel, compare, save_figure
from prod9.shapes import Tokens
from prod9.sliding_window import encode

_GRID_TOLERANCE_MM = 1e-3


@dataclass(frozen=True)
class Settings:
    """How tokens are drawn and volumes are cut; ``samples`` draws from ``seed``."""

    sampler: SamplerConfig
    windows: SlidingWindowConfig
    seed: int
    samples: int = 1


@dataclass(frozen=True)
class Translated:
    """What :func:`translate` wrote."""

    output: Path
    """The draw, or the mean of several."""
    picture: Path
    draws: tuple[Path, ...]
    """Each draw, where there are several."""
    deviation: Path | None
    """Voxel-wise standard deviation of several draws, in intensities."""


def modality_index(generator: Generator, name: str, option: str) -> int:
    """Return the label of a modality.

    Raises:
        UserError: the model does not know it.

    """
    known = generator.class_names
    by_lower = {each.lower(): index for index, each in enumerate(known)}
    if name.lower() not in by_lower:
        raise UserError(f"{option} {name}: this model knows {', '.join(known)}.")
    return by_lower[name.lower()]


def background_cells(generator: Generator, sources: Sequence[Tensor]) -> Tensor:
    """Return which cells of the grid hold nothing in any source, nor do their neighbours.

    Args:
        generator: whose grid.
        sources: volumes (1, 1, D, H, W), 0 outside the foreground.

    Returns:
        bool, shape (*grid).

    """
    stride = generator.tokenizer.autoencoder.stride
    occupied = torch.stack([source[0, 0] > 0 for source in sources]).any(0).float()
    grid = generator.tokenizer.grid(occupied.shape)
    missing = [cells * stride - side for cells, side in zip(grid, occupied.shape, strict=True)]
    # As the tokenizer pads: shared by both faces.
    pads = [p for m in reversed(missing) for p in (m // 2, m - m // 2)]
    cells = F.max_pool3d(F.pad(occupied, pads)[None, None], stride)
    return F.max_pool3d(cells, 3, stride=1, padding=1)[0, 0] == 0


def draw_missing(
    generator: Generator,
    tokens: Mapping[int, Tokens],
    target: int,
    settings: Settings,
    known: Tensor | None = None,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Tokens:
    """Draw ``settings.samples`` token grids (K, *grid) of a modality from those of others.

    Args:
        generator: the model.
        tokens: (1, *grid) for each source modality.
        target: the modality that is drawn.
        settings: how.
        known: bool (*grid): cells where the target is what the first source is (background).
        on_window: told (windows done, windows in all).

    """
    first = next(iter(tokens.values()))
    grid, count = first.shape[1:], settings.samples
    mask_id = generator.transformer.mask_id
    sources = torch.full((1, len(generator.class_names), *grid), mask_id)
    for modality, own in tokens.items():
        sources[:, modality] = own.cpu()
    initial = torch.full((count, *grid), mask_id)
    if known is not None:
        initial = torch.where(known, first.cpu(), initial)
    stream = torch.Generator(generator.device).manual_seed(settings.seed)
    return generator.draw(
        torch.full((count,), target),
        initial,
        settings.sampler,
        stream,
        sources=sources.expand(count, -1, -1, -1, -1),
        overlap=settings.windows.overlap,
        on_window=on_window,
    )


def read_sources(generator: Generator, sources: Mapping[str, Path]) -> dict[int, PreparedVolume]:
    """Read source scans, by modality.

    Raises:
        UserError: an unknown modality, an unreadable file, or files on two grids.

    """
    preprocessing = preprocessing_of(generator.tokenizer)
    prepared: dict[int, PreparedVolume] = {}
    for name, path in sources.items():
        index = modality_index(generator, name, "--source")
        if index in prepared:
            raise UserError(f"--source {name} is given twice; give each modality once.")
        prepared[index] = PreparedVolume.read(path, preprocessing)
    first, *others = prepared.values()
    for other in others:
        _require_same_grid(first.raw, other.raw)
    return prepared


def _require_same_grid(first: RawVolume, other: RawVolume) -> None:
    shape = first.array.shape
    if other.array.shape == shape:
        distance = grid_distance_mm(shape, first.affine, other.affine)
        if distance <= _GRID_TOLERANCE_MM:
            return
        found = f"its voxels lie up to {distance:.3g} mm away"
    else:
        found = (
            f"{' x '.join(map(str, other.array.shape))} in place of {' x '.join(map(str, shape))}"
        )
    raise UserError(
        f"{other.path} is on another grid than {first.path} ({found}); register and resample one "
        "to the other first."
    )


def translate(
    generator: Generator,
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

    The result has the grid, affine and stored type of the first source. Intensities: 0 and 1 of
    the network become the mean of the sources' lower and upper percentiles, because nothing is
    known of the scale of a scan that was never made; background stays background.

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
        UserError: an unknown modality, unreadable or ill-fitting files, or results in the way.

    """
    index = modality_index(generator, target, "--target")
    paths = _translation_paths(output, settings.samples, overwrite)
    prepared = read_sources(generator, sources)
    if index in prepared:
        raise UserError(f"--target {target} is one of the sources; there is nothing to translate.")
    first = next(iter(prepared.values()))
    volumes = {modality: source.tensor() for modality, source in prepared.items()}
    known = background_cells(generator, list(volumes.values()))
    tokens = {m: encode(generator.tokenizer, v, settings.windows) for m, v in volumes.items()}
    with Progress(transient=True) as bar:
        task = bar.add_task(f"drawing {target}", total=None)
        drawn = draw_missing(
            generator,
            tokens,
            index,
            settings,
            known,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    sides = next(iter(volumes.values())).shape[2:]
    draws = generator.decode(drawn, (sides[0], sides[1], sides[2]), settings.windows)[:, 0]
    scale = _shared_scale([source.scale for source in prepared.values()])
    foreground = np.logical_or.reduce([source.foreground for source in prepared.values()])
    if scale.background is None:
        foreground = None
    arrays = np.stack([first.restore(draw, scale, foreground) for draw in draws])
    _write_translation(first.raw, arrays, paths, overwrite)
    labelled = [(generator.class_names[m], v[0, 0]) for m, v in volumes.items()]
    if truth is not None:
        real = PreparedVolume.read(truth, preprocessing_of(generator.tokenizer))
        _require_same_grid(first.raw, real.raw)
        labelled.append((f"{generator.class_names[index]}, true", real.tensor()[0, 0]))
    if foreground is not None:
        inside = torch.from_numpy(first.on_grid(foreground)) > 0
        draws = draws * inside  # as in the files
    panels = _panels(labelled, generator.class_names[index], draws)
    save_figure(paths.picture, compare(panels, at or _middle([v for _, v in labelled])))
    return paths


def _translation_paths(output: Path, samples: int, overwrite: bool) -> Translated:
    suffix = volume_suffix(output)
    if suffix == ".npy":
        raise UserError(f"--output {output} must end in .nii or .nii.gz.")
    stem = output.name[: -len(suffix)]
    several = samples > 1
    paths = Translated(
        output=output,
        picture=output.with_name(f"{stem}.png"),
        draws=tuple(
            output.with_name(f"{stem}_draw-{k}{suffix}") for k in range(1, samples + 1) if several
        ),
        deviation=output.with_name(f"{stem}_std{suffix}") if several else None,
    )
    _require_free([paths.output, paths.picture, *paths.draws, paths.deviation], overwrite)
    return paths


def _require_free(paths: Sequence[Path | None], overwrite: bool) -> None:
    for path in paths:
        if path is not None and path.exists() and not overwrite:
            raise UserError(f"{path} exists; pass --overwrite to replace it.")


def _shared_scale(scales: Sequence[IntensityScale]) -> IntensityScale:
    """Return the mean range of the sources'."""
    low, high = (float(np.mean([getattr(s, end) for s in scales])) for end in ("low", "high"))
    backgrounds = [s.background for s in scales if s.background is not None]
    return IntensityScale(low, high, backgrounds[0] if len(backgrounds) == len(scales) else None)


def _write_translation(
    like: RawVolume, arrays: np.ndarray, paths: Translated, overwrite: bool
) -> None:
    def write(path: Path, array: np.ndarray, dtype: np.dtype) -> None:
        write_nifti(path, array, like.affine, dtype, overwrite=overwrite, header=like.header)

    for path, array in zip(paths.draws, arrays, strict=False):
        write(path, array, like.dtype)
    if paths.deviation is not None:
        write(paths.deviation, arrays.std(0), np.dtype(np.float32))
    write(paths.output, arrays.mean(0), like.dtype)  # last: with it everything is there


def _panels(given: Sequence[tuple[str, Tensor]], name: str, draws: Tensor) -> list[Panel]:
    """What was given, the result and, of several draws, their spread."""
    count = len(draws)
    panels = [Panel(title, volume) for title, volume in given]
    panels.append(
        Panel(f"{name}, drawn" if count == 1 else f"{name}, mean of {count}", draws.mean(0))
    )
    if count > 1:
        spread = draws.std(0, correction=0)
        panels.append(Panel("uncertainty", spread, max(1e-6, float(spread.max())), "magma"))
    return panels


def _middle(volumes: Sequence[Tensor]) -> list[int]:
    """Middle of the box of all voxels above 0; of the grid where there are none."""
    occupied = torch.stack(list(volumes)).amax(0) > 0
    if not bool(occupied.any()):
        return [side // 2 for side in occupied.shape]
    places = occupied.nonzero()
    return ((places.amin(0) + places.amax(0)) // 2).tolist()


@dataclass(frozen=True)
class Inpainted:
    """What :func:`inpaint` wrote."""

    outputs: tuple[Path, ...]
    picture: Path


def inpaint(
    generator: Generator,
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
        UserError: an unknown modality, unreadable or ill-fitting files, an empty mask, or results
            in the way.

    """
    label = modality_index(generator, modality, "--modality")
    suffix = volume_suffix(scan)
    stem = f"{scan.name[: -len(suffix)]}_inpainted"
    numbers = [""] if settings.samples == 1 else [f"-{k + 1}" for k in range(settings.samples)]
    result = Inpainted(
        tuple(folder / f"{stem}{number}{suffix}" for number in numbers), folder / f"{stem}.png"
    )
    _require_free([*result.outputs, result.picture], overwrite)
    preprocessing = preprocessing_of(generator.tokenizer)
    prepared = PreparedVolume.read(scan, preprocessing)
    hidden = read_volume(mask)
    _require_same_grid(prepared.raw, hidden)
    inside = hidden.array != 0
    if not inside.any() or inside.all():
        raise UserError(
            f"{mask} marks {'nothing' if not inside.any() else 'every voxel'}; mark the part that "
            "is to be drawn with values other than 0."
        )
    # Anew, with a range of its own: what is hidden must not show in the percentiles either.
    visible = PreparedVolume.of(_filled(prepared.raw, inside), preprocessing)
    volume = visible.tensor()
    tokens = encode(generator.tokenizer, volume, settings.windows)
    unknown = ~background_cells(generator, [torch.from_numpy(prepared.on_grid(inside))[None, None]])
    initial = torch.where(unknown, generator.transformer.mask_id, tokens)
    stream = torch.Generator(generator.device).manual_seed(settings.seed)
    with Progress(transient=True) as bar:
        task = bar.add_task(f"in-painting {modality}", total=None)
        drawn = generator.draw(
            torch.full((settings.samples,), label),
            initial.expand(settings.samples, -1, -1, -1),
            settings.sampler,
            stream,
            overlap=settings.windows.overlap,
            on_window=lambda done, total: bar.update(task, completed=done, total=total),
        )
    sides = volume.shape[2:]
    draws = generator.decode(drawn, (sides[0], sides[1], sides[2]), settings.windows)[:, 0]
    for path, draw in zip(result.outputs, draws, strict=True):
        restored = visible.restore(draw * (draw > NOTHING))
        write_inside(path, scan, restored, inside, overwrite=overwrite)
    before = torch.from_numpy(prepared.array())
    there = torch.from_numpy(prepared.on_grid(inside)) > 0
    composed = torch.where(there, draws, before)
    given = [("scan", before), ("without the masked part", before * ~there)]
    panels = _panels(given, modality, composed)
    save_figure(result.picture, compare(panels, _middle([there.float()])))
    return result


def _filled(raw: RawVolume, inside: np.ndarray) -> RawVolume:
    """Return the scan with each masked voxel replaced by the nearest visible one."""
    nearest = ndimage.distance_transform_edt(inside, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    return replace(raw, array=raw.array[tuple(nearest)])
