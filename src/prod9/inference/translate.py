"""A missing channel, sampled from those that are there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.data.intensity import IntensityScale
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import StoredVolume, volume_suffix
from prod9.data.volume_files.write import write_nifti
from prod9.errors import Prod9Error
from prod9.inference.completion import (
    CompletedFiles,
    background_cells,
    middle_of,
    require_same_grid,
    to_network,
)
from prod9.inference.labelled import (
    EncodedMask,
    decoded_maps,
    encode_mask,
    label_codes,
    seed_of,
    stored_type,
    vote,
)
from prod9.label_codes import LabelCodes
from prod9.model import Model
from prod9.outpainting import OnWindow
from prod9.runtime.progress import progress_bar
from prod9.sample_request import SampleRequest
from prod9.shapes import Tokens
from prod9.sliding_window import encode


@dataclass(frozen=True)
class Translation:
    """A channel that was sampled from others."""

    sources: Mapping[int, NativeVolume]
    """The volumes it was sampled from, by channel."""
    samples: np.ndarray
    """float32 (K, D, H, W): intensities, on the grid of the first source; int32 if labels."""
    on_grid: Tensor
    """The same in [0, 1] on the network's grid."""


def translated_tokens(
    model: Model,
    volumes: Mapping[int, Tensor],
    request: SampleRequest,
    on_window: OnWindow = lambda done, total: None,
    masks: Sequence[EncodedMask] = (),
) -> Tokens:
    """Sample the tokens (K, *grid) of a channel, the K labels of ``request``.

    ``volumes`` are (1, 1, D, H, W) in [0, 1], 0 outside the foreground, of each source channel;
    ``masks`` are label maps that are sources too. Of a channel of labels the result is
    (K, parts, *grid).
    """
    tokens = {m: encode(model.tokenizer, v, request.windows) for m, v in volumes.items()}
    first = next(iter(tokens.values()))
    mask_id = model.transformer.mask_id
    sources = torch.full((1, len(model.channels), *first.shape[1:]), mask_id)
    for channel, own in tokens.items():
        sources[:, channel] = own
    for mask in masks:
        sources[:, [*model.label_channels[mask.codes.channel]]] = mask.tokens
    # Where no source has anything, neither has the target.
    known = background_cells(model, list(volumes.values()))
    target = model.channels[request.labels[0] % len(model.channels)]
    if target not in model.label_channels:
        initial = torch.where(known, first, mask_id)
        return model.sample(replace(request, initial=initial, sources=sources), on_window=on_window)
    nothing = label_codes(model, target).encode(np.zeros(_sides(volumes), np.float32))
    sources = sources.expand(len(request.labels), *sources.shape[1:]).clone()
    parts = model.label_channels[target]
    for empty, part in zip(torch.from_numpy(nothing), parts, strict=True):
        one = replace(
            request,
            labels=tuple(label - parts[0] + part for label in request.labels),
            initial=torch.where(known, empty, mask_id)[None],
            sources=sources.clone(),
            seed=seed_of(request.seed, part),
        )
        sources[:, part] = model.sample(one, on_window=on_window).cpu()
    return sources[:, [*parts]]


def _sides(volumes: Mapping[int, Tensor]) -> tuple[int, int, int]:
    d, h, w = next(iter(volumes.values())).shape[2:]
    return d, h, w


def translate(
    model: Model,
    sources: Mapping[str, StoredVolume],
    request: SampleRequest,
    on_window: OnWindow = lambda done, total: None,
) -> Translation:
    """Sample a missing channel from those that are there.

    0 and 1 of the network become the mean of the sources' lower and upper percentiles, because
    nothing is known of the intensities of a scan that was never made; background stays background.

    Args:
        model: a model of scans.
        sources: volume of each channel that is there, by its name, all on one grid.
        request: the target channel, once for each of K samples, and how.
        on_window: told of the progress.

    Raises:
        Prod9Error: no source, an unknown one, one given twice, or the target; a volume is empty or
            on another grid.
    """
    target = request.labels[0] % len(model.channels)
    native: dict[int, NativeVolume] = {}
    masks: dict[int, EncodedMask] = {}
    for name, volume in sources.items():
        channel = model.channel_of(name)
        if channel in native or channel in masks:
            raise Prod9Error(f"a source is given twice in {', '.join(sources)}; give each once.")
        if channel == target:
            raise Prod9Error(f"the target {name} is one of the sources; give another.")
        if model.channels[channel] in model.label_channels:
            masks[channel] = encode_mask(model, volume, model.channels[channel])
        else:
            native[channel] = to_network(volume, model.tokenizer, model.channels[channel])
    if not native and masks:
        raise Prod9Error(
            "give an image among the sources; `prod9 generate --mask` makes images of a label map "
            "alone."
        )
    if not native:
        raise Prod9Error("give at least one source to translate from.")
    first, *others = native.values()
    for other in [*(each.raw for each in others), *(each.stored for each in masks.values())]:
        require_same_grid(first.raw, other)
    volumes = {channel: each.tensor() for channel, each in native.items()}
    tokens = translated_tokens(model, volumes, request, on_window, [*masks.values()])
    if model.channels[target] in model.label_channels:
        return _labels(native, label_codes(model, model.channels[target]), tokens)
    samples = model.decode(tokens, _sides(volumes), request.windows)[:, 0]
    scale, foreground = _mean_scale([each.scale for each in native.values()]), None
    restored = samples
    if scale.background is not None:
        foreground = np.logical_or.reduce([each.foreground for each in native.values()])
        samples = samples * (torch.from_numpy(first.on_grid(foreground)) > 0)
    stored = np.stack([first.restore(each, scale, foreground) for each in restored])
    return Translation(native, stored, samples)


def _labels(sources: Mapping[int, NativeVolume], codes: LabelCodes, tokens: Tokens) -> Translation:
    """Return label maps, on the grid of the first source; to be shown, the last label is 1."""
    first = next(iter(sources.values()))
    placement = first.placement
    assert placement is not None  # of scans
    maps = decoded_maps(codes, tokens, placement.shape)
    stored = np.stack([placement.invert_nearest(each) for each in maps])
    shown = np.searchsorted(sorted(codes.values), maps) / max(1, len(codes.values) - 1)
    return Translation(sources, stored, torch.from_numpy(shown.astype(np.float32)))


def _mean_scale(scales: Sequence[IntensityScale]) -> IntensityScale:
    low = float(np.mean([scale.low for scale in scales]))
    high = float(np.mean([scale.high for scale in scales]))
    everywhere = all(scale.background is not None for scale in scales)
    return IntensityScale(low, high, scales[0].background if everywhere else None)


def translate_files(
    model: Model,
    sources: Mapping[str, Path],
    output: Path,
    request: SampleRequest,
    *,
    overwrite: bool,
    resume: bool = False,
    truth: Path | None = None,
    at: Sequence[int] | None = None,
) -> CompletedFiles:
    """Run :func:`translate` on files; write the result, a picture and a record.

    The result has the grid and affine of the first source, and its stored type where all sources
    share it (else float32); of several samples it is the mean, and each sample and their
    standard deviation are written beside it. Of labels it is the most frequent label of each voxel,
    and beside it is the share of samples with another one.

    Args:
        model: a model of scans.
        sources: file of each channel that is there.
        output: ``.nii`` or ``.nii.gz``; all other files go beside it.
        request: the target channel, once for each sample, and how.
        overwrite: replace what is there.
        resume: do nothing if the same results are there, complete their files if some are.
        truth: the real volume of the target, to be shown in the picture.
        at: voxel of the network's grid through which the picture is cut; by default the middle.

    Raises:
        Prod9Error: as :func:`translate`; an unknown channel, unreadable files, results in the way.
    """
    names, count = model.channels, len(request.labels)
    target = names[request.labels[0] % len(names)]
    files = files_beside(output, count)
    inputs = {names[model.channel_of(name)]: str(path) for name, path in sources.items()}
    record = files.record_of(model, request, sources=inputs, target=target)
    if resume and files.were_begun(record):
        if all(path.exists() for path in files.all):
            return files
        overwrite = True
    files.require_free([*sources.values(), *([truth] if truth else [])], overwrite)
    stored = {name: read_volume(path) for name, path in sources.items()}
    with progress_bar(f"sampling {target}", "windows") as on_window:
        found = translate(model, stored, request, on_window)
    first = next(iter(stored.values()))
    shown = [(names[c], torch.from_numpy(each.array())) for c, each in found.sources.items()]
    if truth is not None:
        real = NativeVolume.of(read_volume(truth), model.tokenizer.spec.preprocessing, target)
        require_same_grid(first, real.raw)
        shown.append((f"{target}, true", torch.from_numpy(real.array())))
    files.write_record(record)
    types = {each.dtype for each in stored.values()}
    # The shared range need not fit the type of one source among several.
    dtype = first.dtype if len(types) == 1 else np.dtype(np.float32)
    middle, spread = found.samples.mean(0), found.samples.std(0)
    if target in model.label_channels:
        middle, spread = vote(found.samples)
        dtype = stored_type(label_codes(model, target).values)
    volumes = [(middle, dtype)]
    if count > 1:
        volumes += [(sample, dtype) for sample in found.samples]
        volumes.append((spread, np.dtype(np.float32)))
    # The mean last: with it everything is there.
    for path, (array, own) in reversed(list(zip(files.results, volumes, strict=True))):
        write_nifti(path, array, first.affine, own, overwrite=overwrite, header=first.header)
    at = at or middle_of([volume for _, volume in shown])
    files.draw_picture(shown, target, found.on_grid, at)
    return files


def files_beside(output: Path, count: int) -> CompletedFiles:
    """Return the files that a translation of ``count`` samples to ``output`` writes."""
    suffix = volume_suffix(output)
    if suffix == ".npy":
        raise Prod9Error(f"--output {output} must end in .nii or .nii.gz.")
    stem = output.name[: -len(suffix)]
    maps = [f"{stem}_draw-{k + 1}{suffix}" for k in range(count)] + [f"{stem}_std{suffix}"]
    beside = [output.with_name(name) for name in maps] if count > 1 else []
    picture, record = output.with_name(f"{stem}.png"), output.with_name(f"{stem}.json")
    return CompletedFiles((output, *beside), picture, record)
