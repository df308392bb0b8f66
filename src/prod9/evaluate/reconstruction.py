"""How well a tokenizer gives volumes back."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from prod9.config import SlidingWindowConfig
from prod9.data.volumes import Batch
from prod9.metrics.codebook import CodebookUsage
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.shapes import Volume
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer


@dataclass(frozen=True)
class ReconstructionMetrics:
    """Means over volumes, each volume measured by itself, intensities in [0, 1]."""

    psnr: float
    """dB."""
    psnr_std: float
    ssim: float
    ssim_std: float
    l1: float
    volumes: int
    codebook_usage: float
    """Share of the codes that occur."""
    codebook_perplexity: float
    psnr_per_class: dict[str, float]
    psnr_foreground: float | None = None
    """Over the voxels of the scan that are not background; None where there is no such thing."""
    ssim_foreground: float | None = None


def evaluate_reconstruction(
    tokenizer: Tokenizer, loader: DataLoader[Batch], class_names: tuple[str, ...]
) -> ReconstructionMetrics:
    """Encode and decode every volume of ``loader``."""
    device = next(tokenizer.parameters()).device
    usage = CodebookUsage(tokenizer.fsq.levels)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for batch in track(loader, "reconstructing", transient=True):
        real = batch.volumes.to(device)
        tokens = tokenizer.encode(real)
        usage.update(tokens)
        output = tokenizer.decode(tokens, real.shape[2:])
        l1 = F.l1_loss(output, real, reduction="none").flatten(1).mean(1)
        parts.append((psnr(output, real), ssim(output, real), l1, batch.labels))
    psnrs, ssims, l1s, labels = (
        torch.cat([p.cpu() for p in part]) for part in zip(*parts, strict=True)
    )
    return _summary(usage, psnrs, ssims, l1s, labels, class_names)


def evaluate_whole(
    tokenizer: Tokenizer,
    volumes: Iterable[tuple[str, int, np.ndarray]],
    count: int,
    windows: SlidingWindowConfig,
) -> ReconstructionMetrics:
    """Encode and decode whole scans through windows.

    Args:
        tokenizer: what is measured.
        volumes: (name, class, volume (D, H, W) in [0, 1], 0 outside the foreground).
        count: how many there are, for the progress bar.
        windows: how they are cut.

    """
    usage = CodebookUsage(tokenizer.fsq.levels)
    rows: list[list[float]] = []
    labels: list[int] = []
    for _, label, array in track(volumes, "reconstructing", total=count, transient=True):
        real = torch.from_numpy(array)[None, None]
        tokens = encode(tokenizer, real, windows)
        usage.update(tokens)
        output = decode(tokenizer, tokens, real.shape[2:], windows)
        inside = real > 0
        rows.append(
            [
                float(psnr(output, real)),
                float(ssim(output, real)),
                float(F.l1_loss(output, real)),
                float(psnr(output, real, mask=inside)),
                float(ssim(output, real, mask=inside)),
            ]
        )
        labels.append(label)
    psnrs, ssims, l1s, *foreground = torch.tensor(rows, dtype=torch.float64).T
    names = tokenizer.spec.class_names
    summary = _summary(usage, psnrs, ssims, l1s, torch.tensor(labels), names)
    psnr_foreground, ssim_foreground = (float(values.mean()) for values in foreground)
    return replace(summary, psnr_foreground=psnr_foreground, ssim_foreground=ssim_foreground)


def _summary(
    usage: CodebookUsage,
    psnrs: Tensor,
    ssims: Tensor,
    l1s: Tensor,
    labels: Tensor,
    class_names: tuple[str, ...],
) -> ReconstructionMetrics:
    stats = usage.compute()
    return ReconstructionMetrics(
        psnr=float(psnrs.mean()),
        psnr_std=float(psnrs.std(correction=0)),
        ssim=float(ssims.mean()),
        ssim_std=float(ssims.std(correction=0)),
        l1=float(l1s.mean()),
        volumes=len(labels),
        codebook_usage=stats.usage,
        codebook_perplexity=stats.perplexity,
        psnr_per_class={
            class_names[label]: float(psnrs[labels == label].mean())
            for label in torch.unique(labels).tolist()
        },
    )


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
