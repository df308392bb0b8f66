"""Volumes encoded and decoded, and how near they are to their originals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log2, nan, prod

import numpy as np
import torch
import torch.nn.functional as F

from prod9.config import SlidingWindowConfig
from prod9.data.volume_sets.volume_set import VolumeSet, kept_in_memory
from prod9.evaluation.feature_spaces import NO_CACHE
from prod9.evaluation.pretrained import FeatureDistance
from prod9.evaluation.work_cache import WorkCache
from prod9.metrics.bootstrap import bootstrap_interval
from prod9.metrics.codebook import CodebookStats, CodebookUsage
from prod9.metrics.dice import dice
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import MS_SSIM_WINDOW, ms_ssim, ssim
from prod9.results.schema import Interval, Reconstruction, ReconstructionFigures
from prod9.shapes import Volume
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer

_SSIM_WINDOW = 11
WHOLE: tuple[str, ...] = ("psnr", "ssim", "ms_ssim", "mae", "lpips", "dice")
FOREGROUND: tuple[str, ...] = ("psnr", "ssim", "mae")


@dataclass(frozen=True)
class RoundTrip:
    """What a tokenizer makes of a set of volumes."""

    reconstructed: VolumeSet
    """Made when read, and kept in memory while there is room."""
    codebook: Callable[[], CodebookStats]
    """Statistics of the codes of all volumes; encodes those that were not yet read."""
    bits_per_voxel: Callable[[], float]
    """Size of the tokens of a volume, log2(codes) bits each, over its voxels."""
    made_by: str
    """Decides the reconstructions: the tokenizer and the windows."""


def round_trip(
    tokenizer: Tokenizer,
    originals: VolumeSet,
    windows: SlidingWindowConfig | None,
    cache: WorkCache = NO_CACHE,
) -> RoundTrip:
    """Encode and decode volumes: through windows, or each at once. ``cache`` keeps the tokens."""
    usage, counted = CodebookUsage(tokenizer.fsq.levels), set[int]()
    made_by = f"{tokenizer.digest} {windows}"

    @torch.no_grad()
    def encoded(index: int) -> np.ndarray:
        volume = torch.from_numpy(originals[index])[None, None]
        if windows is None:
            return tokenizer.encode(volume.to(tokenizer.device)).cpu().numpy()
        return encode(tokenizer, volume, windows).numpy()

    def tokens_of(index: int) -> torch.Tensor:
        name = f"tokens of {index} of {originals.sha256} by {made_by}" if cache.folder else ""
        tokens = torch.from_numpy(cache.one(name, lambda: encoded(index)))
        if index not in counted:
            counted.add(index)
            usage.update(tokens)
        return tokens

    @torch.no_grad()
    def read(index: int) -> np.ndarray:
        tokens = tokens_of(index)
        if windows is None:
            output = tokenizer.decode(tokens.to(tokenizer.device), originals.shape).cpu()
        else:
            output = decode(tokenizer, tokens, originals.shape, windows)
        return output[0, 0].numpy()

    def codebook() -> CodebookStats:
        for index in range(len(originals)):
            if index not in counted:
                tokens_of(index)
        return usage.compute()

    def bits_per_voxel() -> float:
        bits = tokens_of(0).numel() * log2(tokenizer.fsq.codebook_size)
        return bits / prod(originals.shape)

    name, cached = f"{originals.name}, encoded and decoded", kept_in_memory(read, originals.shape)
    reconstructed = replace(originals, name=name, read=cached, files=None)
    return RoundTrip(reconstructed, codebook, bits_per_voxel, made_by)


@torch.no_grad()
def measure_pair(
    original: np.ndarray, reconstructed: np.ndarray, lpips: FeatureDistance | None
) -> np.ndarray:
    """Measure one volume (D, H, W) in [0, 1] against its original.

    Returns:
        float64 (10,): :data:`WHOLE` over all voxels, :data:`FOREGROUND` over the foreground (not 0
        in the original), and whether there is background (0 or 1). NaN: not defined.
    """
    real = torch.from_numpy(original)[None, None]
    output = torch.from_numpy(reconstructed)[None, None]
    side, inside = min(original.shape), real > 0
    ssim_fits, empty = side >= _SSIM_WINDOW, not bool(inside.any())
    return np.array(
        [
            float(psnr(output, real)),
            float(ssim(output, real)) if ssim_fits else nan,
            float(ms_ssim(output, real)) if side >= MS_SSIM_WINDOW else nan,
            float(F.l1_loss(output, real)),
            nan if lpips is None else float(lpips(output, real)),
            dice(reconstructed, original),
            nan if empty else float(psnr(output, real, mask=inside)),
            float(ssim(output, real, mask=inside)) if ssim_fits and not empty else nan,
            nan if empty else float((output - real).abs()[inside].mean()),
            float(not bool(inside.all())),
        ]
    )


def summarize(
    originals: VolumeSet,
    rows: np.ndarray,
    *,
    seed: int = 0,
    lpips_network: str | None = None,
    codebook: CodebookStats | None = None,
    bits_per_voxel: float | None = None,
) -> Reconstruction:
    """Return the means of the rows (N, 10) of :func:`measure_pair`, with bootstrap intervals."""
    whole, inside = rows[:, : len(WHOLE)], rows[:, len(WHOLE) : -1]
    inside = inside[~np.isnan(inside[:, 0])]
    return Reconstruction(
        **_means(WHOLE, whole, seed).model_dump(),
        foreground=_means(FOREGROUND, inside, seed) if len(inside) and rows[:, -1].any() else None,
        per_class={
            name: _means(WHOLE, whole[originals.labels == label], seed)
            for label, name in enumerate(originals.class_names)
            if originals.has_classes and np.any(originals.labels == label)
        },
        lpips_network=lpips_network,
        codebook_usage=codebook and codebook.usage,
        codebook_perplexity=codebook and codebook.perplexity,
        bits_per_voxel=bits_per_voxel,
    )


def _means(names: Sequence[str], rows: np.ndarray, seed: int) -> ReconstructionFigures:
    values: dict[str, float | None] = dict.fromkeys(WHOLE)
    intervals: dict[str, Interval] = {}
    for name, column in zip(names, np.ascontiguousarray(rows.T), strict=True):
        column = column[~np.isnan(column)]
        if len(column):
            values[name] = float(column.mean())
        if len(column) > 1:
            intervals[name] = bootstrap_interval(torch.from_numpy(column), seed=seed)
    return ReconstructionFigures.model_validate(
        {"volumes": len(rows), **values, "intervals": intervals}
    )


def table(originals: VolumeSet, rows: np.ndarray) -> list[dict[str, object]]:
    """Return one row of a CSV file per volume, from the rows of :func:`measure_pair`."""
    inside = [f"{name}_foreground" for name in FOREGROUND]
    result: list[dict[str, object]] = []
    for name, label, values in zip(originals.names, originals.labels, rows.tolist(), strict=True):
        row: dict[str, object] = {"name": name, "class": originals.class_names[label]}
        row |= dict(zip(WHOLE, values, strict=False))
        if not np.isnan(values[len(WHOLE)]):
            row |= dict(zip(inside, values[len(WHOLE) : -1], strict=True))
        result.append(row)
    return result


@torch.no_grad()
def window_agreement(
    tokenizer: Tokenizer, volume: Volume, windows: SlidingWindowConfig
) -> dict[str, float]:
    """Compare a scan (1, 1, D, H, W) in [0, 1] encoded and decoded through windows and at once.

    Returns:
        ``difference_l1``: mean absolute difference of the two results. Over the foreground, in dB:
        ``difference_psnr`` of one result against the other, ``windowed_psnr`` and ``whole_psnr`` of
        each against the scan.
    """
    sides, inside = volume.shape[2:], volume > 0
    windowed = decode(tokenizer, encode(tokenizer, volume, windows), sides, windows)
    whole = tokenizer.decode(tokenizer.encode(volume.to(tokenizer.device)), sides).cpu()
    return {
        "difference_l1": float(F.l1_loss(windowed, whole)),
        "difference_psnr": float(psnr(windowed, whole, mask=inside)),
        "windowed_psnr": float(psnr(windowed, volume, mask=inside)),
        "whole_psnr": float(psnr(whole, volume, mask=inside)),
    }
