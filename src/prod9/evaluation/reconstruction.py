"""How near reconstructed volumes are to their originals."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.config import SlidingWindowConfig
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.metrics.bootstrap import bootstrap_interval
from prod9.metrics.codebook import CodebookStats
from prod9.metrics.ms_ssim import ms_ssim
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.results.record import Interval
from prod9.results.schema import Reconstruction, ReconstructionFigures
from prod9.shapes import Volume
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer

_SSIM_WINDOW, _MS_SSIM_WINDOW = 11, 5
_FIGURES: tuple[str, ...] = ("psnr", "ssim", "ms_ssim", "mae", "lpips")
_INSIDE: tuple[str, ...] = ("psnr", "ssim", "mae")

FeatureDistance = Callable[[Volume, Volume], Tensor]
"""(prediction, target), both (1, 1, D, H, W) in [0, 1] -> a number."""


@dataclass(frozen=True)
class Row:
    """Figures of one volume; NaN where one is not defined."""

    name: str
    label: int
    whole: dict[str, float]
    foreground: dict[str, float] | None
    """None where nothing is foreground."""


Measured = tuple[dict[str, float], dict[str, float] | None, bool]
"""Figures of a volume and of its foreground, and whether it has background."""


def measure_pair(
    original: np.ndarray, reconstructed: np.ndarray, lpips: FeatureDistance | None
) -> Measured:
    """Measure one volume (D, H, W) in [0, 1].

    Returns:
        Figures of the whole volume and of its foreground (voxels that are not 0), and whether
        there is background at all.
    """
    real = torch.from_numpy(original)[None, None]
    output = torch.from_numpy(reconstructed)[None, None]
    side = min(original.shape)
    whole = {
        "psnr": float(psnr(output, real)),
        "ssim": float(ssim(output, real)) if side >= _SSIM_WINDOW else float("nan"),
        "ms_ssim": float(ms_ssim(output, real)) if side >= _MS_SSIM_WINDOW else float("nan"),
        "mae": float(F.l1_loss(output, real)),
        "lpips": float("nan") if lpips is None else float(lpips(output, real)),
    }
    inside = real > 0
    if not bool(inside.any()):
        return whole, None, True
    foreground = {
        "psnr": float(psnr(output, real, mask=inside)),
        "ssim": float(ssim(output, real, mask=inside)) if side >= _SSIM_WINDOW else float("nan"),
        "mae": float((output - real).abs()[inside].mean()),
    }
    return whole, foreground, not bool(inside.all())


def packed(measured: Measured) -> np.ndarray:
    """Return what :func:`measure_pair` found as numbers, to be kept on disk."""
    whole, foreground, background = measured
    inside = [float("nan")] * len(_INSIDE) if foreground is None else [*foreground.values()]
    return np.array([*whole.values(), *inside, foreground is not None, background], np.float64)


def unpacked(numbers: np.ndarray) -> Measured:
    """Undo :func:`packed`."""
    *figures, occupied, background = numbers.tolist()
    whole = dict(zip(_FIGURES, figures, strict=False))
    foreground = dict(zip(_INSIDE, figures[len(_FIGURES) :], strict=True)) if occupied else None
    return whole, foreground, bool(background)


@torch.no_grad()
def evaluate_reconstruction(
    originals: VolumeSet,
    reconstructed: VolumeSet,
    *,
    seed: int = 0,
    lpips: FeatureDistance | None = None,
    lpips_network: str | None = None,
    codebook: Callable[[], CodebookStats] | None = None,
    on_volume: Callable[[int], None] = lambda count: None,
    through: Callable[[Callable[[int], Measured]], Iterable[Measured]] | None = None,
) -> tuple[Reconstruction, list[Row]]:
    """Compare volume by volume; the collections are paired by their order.

    Args:
        originals: the truth.
        reconstructed: the same volumes, made again.
        seed: of the bootstrap.
        lpips: distance of features; left out without weights.
        lpips_network: its name.
        codebook: asked, at the end, for the codes that occurred; left out where nobody knows.
        on_volume: told how many are done.
        through: given what measures the volume of an index, gives the figures of all in order; may
            remember them.
    """
    rows: list[Row] = []
    background = False

    def measure(index: int) -> Measured:
        return measure_pair(originals[index], reconstructed[index], lpips)

    everything = map(measure, range(len(originals))) if through is None else through(measure)
    for index, (name, measured) in enumerate(zip(originals.names, everything, strict=True)):
        whole, foreground, some = measured
        background = background or some
        rows.append(Row(name, int(originals.labels[index]), whole, foreground))
        on_volume(index + 1)
    inside = [row.foreground for row in rows if row.foreground is not None]
    stats = None if codebook is None else codebook()
    labels = np.array([row.label for row in rows])
    return Reconstruction(
        **_means([row.whole for row in rows], seed).model_dump(),
        foreground=_means(inside, seed) if inside and background else None,
        per_class={
            name: _means([row.whole for row in rows if row.label == label], seed)
            for label, name in enumerate(originals.class_names)
            if originals.has_classes and np.any(labels == label)
        },
        lpips_network=lpips_network,
        codebook_usage=None if stats is None else stats.usage,
        codebook_perplexity=None if stats is None else stats.perplexity,
    ), rows


def _means(rows: Sequence[dict[str, float]], seed: int) -> ReconstructionFigures:
    values: dict[str, float | None] = dict.fromkeys(_FIGURES)
    intervals: dict[str, Interval] = {}
    for name in rows[0]:
        column = np.array([row[name] for row in rows])
        # Not defined for a volume (no window inside its foreground): it does not count.
        column = column[~np.isnan(column)]
        if len(column):
            values[name] = float(column.mean())
            if len(column) > 1:
                intervals[name] = bootstrap_interval(torch.from_numpy(column), seed=seed)
    return ReconstructionFigures.model_validate(
        {"volumes": len(rows), **values, "intervals": intervals}
    )


def table(rows: Sequence[Row], class_names: Sequence[str]) -> list[dict[str, object]]:
    """Return one flat row a volume, for a CSV file."""
    return [
        {
            "name": row.name,
            "class": class_names[row.label],
            **row.whole,
            **{f"{name}_foreground": value for name, value in (row.foreground or {}).items()},
        }
        for row in rows
    ]


@dataclass(frozen=True)
class WindowAgreement:
    """One scan, encoded and decoded through windows and at once; intensities in [0, 1]."""

    difference_l1: float
    """Mean absolute difference of the two results."""
    difference_psnr: float
    """dB: of one result against the other, over the foreground."""
    windowed_psnr: float
    """dB: of the windowed result against the scan, over the foreground."""
    whole_psnr: float


@torch.no_grad()
def window_agreement(
    tokenizer: Tokenizer, volume: Volume, windows: SlidingWindowConfig
) -> WindowAgreement:
    """Compare windows with one pass over (1, 1, D, H, W), which needs memory for all of it."""
    device = next(tokenizer.parameters()).device
    sides, inside = volume.shape[2:], volume > 0
    windowed = decode(tokenizer, encode(tokenizer, volume, windows), sides, windows)
    whole = tokenizer.decode(tokenizer.encode(volume.to(device)), sides).cpu()
    return WindowAgreement(
        difference_l1=float(F.l1_loss(windowed, whole)),
        difference_psnr=float(psnr(windowed, whole, mask=inside)),
        windowed_psnr=float(psnr(windowed, volume, mask=inside)),
        whole_psnr=float(psnr(whole, volume, mask=inside)),
    )
