"""How well a tokenizer gives volumes back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from prod9.data.volumes import Batch
from prod9.metrics.codebook import CodebookUsage
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
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
