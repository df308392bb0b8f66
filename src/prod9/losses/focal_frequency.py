"""Focal Frequency Loss (Jiang et al. 2021, arXiv 2012.12821), in 2D and in 3D by slices.

Spectra are compared, and the frequencies with the largest errors weigh most. Two identities make
this cheaper than the definition: the Fourier transform is linear, so one transform of the
difference replaces two; and the spectrum of a real image is Hermitian, so half of it (``rfft2``)
holds every magnitude, and the columns left out are counted by weight. Always fp32: ``fft2`` refuses
bf16 and fp16 on CPU, and squared magnitudes overflow fp16.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prod9.config.loss import FocalFrequencyLossConfig
from prod9.runtime.distributed import rank, total, total_with_gradient, world_size
from prod9.shapes import Volume


def focal_frequency_2d(
    prediction: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    *,
    alpha: float = 1.0,
    patch_factor: int = 1,
    ave_spectrum: bool = False,
    log_matrix: bool = False,
    batch_matrix: bool = False,
    over_all: bool = False,
) -> Float[Tensor, ""]:
    """mean(w * d) over frequencies, patches, channels and images (eq. 8 of the paper), fp32.

    d = |F(prediction) - F(target)|^2 of the orthonormal 2D transform of each patch; w = sqrt(d) to
    the power ``alpha``, over its maximum within the patch, clamped to [0, 1] and detached.

    Args:
        prediction: images.
        target: images.
        alpha: focusing exponent.
        patch_factor: patches per side of an image.
        ave_spectrum: average the spectra over the batch first.
        log_matrix: take log(1 + w) before it is divided by its maximum.
        batch_matrix: divide by the maximum over everything, not within a patch.
        over_all: the batch of ``ave_spectrum`` and ``batch_matrix`` is that of all processes; all
            must call, each with as many images.

    Raises:
        ValueError: a side that ``patch_factor`` does not divide.
    """
    n, c, h, w = prediction.shape
    if h % patch_factor or w % patch_factor:
        raise ValueError(
            f"patch_factor {patch_factor} does not divide a slice of {h} x {w}; "
            "choose a common divisor of its sides (loss.focal_frequency.patch_factor)"
        )
    with torch.autocast(prediction.device.type, enabled=False):
        difference = prediction.float() - target.float()
        if ave_spectrum:
            n, difference = 1, difference.mean(0, keepdim=True)
            if over_all:
                difference = total_with_gradient(difference) / world_size()
        p, ph, pw = patch_factor, h // patch_factor, w // patch_factor
        # (n, c, p rows, ph, p columns, pw) -> (n, c, p, p, ph, pw)
        patches = difference.reshape(n, c, p, ph, p, pw).transpose(3, 4)
        spectrum = torch.view_as_real(torch.fft.rfft2(patches, norm="ortho"))
        distance = spectrum.square().sum(-1)  # (n, c, p, p, ph, pw // 2 + 1)
        with torch.no_grad():
            weight = distance.sqrt() ** alpha
            if log_matrix:
                weight = weight.log1p()
            peak = weight.max() if batch_matrix else weight.amax((-2, -1), keepdim=True)
            if batch_matrix and over_all:
                peaks = peak.new_zeros(world_size())
                peaks[rank()] = peak
                peak = total(peaks).max()
            # A patch without any error is 0 / 0: its weight is 0.
            weight = (weight / peak).nan_to_num(nan=0.0).clamp(0.0, 1.0)
            # How often fft2 has each column: column 0 and the last of an even width are their own
            # mirror images.
            counts = torch.full((pw // 2 + 1,), 2.0, device=weight.device)
            counts[0] = 1.0
            if pw % 2 == 0:
                counts[-1] = 1.0
            weight = weight * counts
        return (weight * distance).sum() / difference.numel()


class FocalFrequencyLoss(nn.Module):
    """Focal frequency loss of volumes: 2D slices along each of ``axes``, averaged over the axes.

    A share ``ratio`` of the slices of an axis (at least one) is used, the same ones for the whole
    batch: new random ones in each call while training, evenly spaced ones in eval mode. The batch
    of ``ave_spectrum`` and ``batch_matrix`` is that of all processes while training; in eval mode
    each volume is a batch by itself.

    Args:
        axes: axes of (B, C, D, H, W) along which to slice, among 2, 3, 4.
        ratio: share of the slices, in (0, 1].
        options: of :func:`focal_frequency_2d`.
    """

    def __init__(
        self, *, axes: Sequence[int] = (2, 3, 4), ratio: float = 0.5, **options: Any
    ) -> None:
        super().__init__()
        self.axes, self.ratio = axes, ratio
        self.loss_2d = partial(focal_frequency_2d, **options)
        self.mixes_volumes = bool(options.get("ave_spectrum") or options.get("batch_matrix"))

    def slice_indices(self, size: int, generator: torch.Generator | None = None) -> Tensor:
        """Which of ``size`` slices are used, int64, (max(1, round(ratio * size)),), ascending."""
        count = max(1, round(self.ratio * size))
        if self.training and count < size:
            device = "cpu" if generator is None else generator.device
            return torch.randperm(size, generator=generator, device=device)[:count].sort().values
        # Centres of `count` equal parts.
        return (2 * torch.arange(count) + 1) * size // (2 * count)

    def forward(
        self, prediction: Volume, target: Volume, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Return the mean over the axes, fp32; ``generator`` chooses the slices while training."""
        if self.mixes_volumes and not self.training and len(prediction) > 1:
            pairs = zip(prediction.split(1), target.split(1), strict=True)
            return torch.stack([self(a, b, generator) for a, b in pairs]).mean()
        terms: list[Tensor] = []
        for axis in self.axes:
            indices = self.slice_indices(prediction.shape[axis], generator).to(prediction.device)
            # Slices become channels, not images: `ave_spectrum` averages over volumes, never over
            # different slices of one volume.
            slices = (
                volume.index_select(axis, indices).movedim(axis, 2).flatten(1, 2)
                for volume in (prediction, target)
            )
            terms.append(self.loss_2d(*slices, over_all=self.training))
        return torch.stack(terms).mean()


def build(config: FocalFrequencyLossConfig) -> FocalFrequencyLoss:
    """Return the loss of the section ``loss.focal_frequency``, unweighted."""
    return FocalFrequencyLoss(**config.model_dump(exclude={"weight"}))
