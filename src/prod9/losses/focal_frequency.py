"""Focal Frequency Loss (Jiang et al. 2021, arXiv 2012.12821), in 2D and in 3D by slices.

Spectra are compared, and the frequencies that are off by most weigh most. Two identities make this
cheaper than the definition without changing it: the Fourier transform is linear, so one transform
of the difference replaces two; and the spectrum of a real image is Hermitian, so half of it
(``rfft2``) holds every magnitude, the columns left out being copies that are counted by weight.
Always fp32: ``fft2`` refuses bf16 and fp16 on CPU, and squared magnitudes overflow fp16.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prod9.config.loss import FocalFrequencyLossConfig
from prod9.runtime.distributed import rank, total, total_with_gradient, world_size
from prod9.shapes import Volume


def _column_counts(width: int, device: torch.device) -> Tensor:
    """How often each column of ``rfft2`` occurs in ``fft2``, (width // 2 + 1,): 1, 2, ..., 2(, 1).

    Column 0 is its own mirror image, and so is the Nyquist column of an even width.
    """
    counts = torch.full((width // 2 + 1,), 2.0, device=device)
    counts[0] = 1.0
    if width % 2 == 0:
        counts[-1] = 1.0
    return counts


def focal_frequency_2d(
    prediction: Float[Tensor, "n c h w"],
    target: Float[Tensor, "n c h w"],
    alpha: float = 1.0,
    patch_factor: int = 1,
    ave_spectrum: bool = False,
    log_matrix: bool = False,
    batch_matrix: bool = False,
    over_all: bool = False,
) -> Float[Tensor, ""]:
    """mean(w * d) over frequencies, patches, channels and images (eq. 8 of the paper), fp32.

    d = |F(prediction) - F(target)|^2 of the orthonormal 2D transform of each of
    ``patch_factor`` x ``patch_factor`` patches; w = sqrt(d)^alpha, then log(1 + w) with
    ``log_matrix``, over its maximum within the patch and channel (over everything with
    ``batch_matrix``), clamped to [0, 1] and detached. ``ave_spectrum`` averages the spectra over
    the batch first. Not multiplied by the term's weight. ``over_all``: these two look at the batch
    of all processes, which must all come here, each with as many images.

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
            difference = difference.mean(0, keepdim=True)
            if over_all and world_size() > 1:
                difference = total_with_gradient(difference) / world_size()
            n = 1
        p, ph, pw = patch_factor, h // patch_factor, w // patch_factor
        # (n, c, p rows, ph, p columns, pw) -> (n, c, p, p, ph, pw)
        patches = difference.reshape(n, c, p, ph, p, pw).transpose(3, 4)
        spectrum = torch.view_as_real(torch.fft.rfft2(patches, norm="ortho"))
        distance = spectrum.square().sum(-1)  # (n, c, p, p, ph, pw // 2 + 1)
        with torch.no_grad():
            weight = distance.sqrt() ** alpha
            if log_matrix:
                weight = weight.log1p()
            # A patch without any error is 0 / 0: its weight is 0.
            peak = weight.amax((-2, -1), keepdim=True)
            if batch_matrix:
                peak = _largest_of_all(weight.max()) if over_all else weight.max()
            weight = (weight / peak).nan_to_num(nan=0.0).clamp(0.0, 1.0)
            weight = weight * _column_counts(pw, weight.device)
        return (weight * distance).sum() / difference.numel()


def _largest_of_all(value: Tensor) -> Tensor:
    """Return the largest of all processes' scalars; no gradient."""
    if world_size() == 1:
        return value
    values = value.new_zeros(world_size())
    values[rank()] = value
    return total(values).max()


class FocalFrequencyLoss(nn.Module):
    """Focal frequency loss of volumes: 2D slices along each of ``axes``, averaged over the axes.

    A share ``ratio`` of the slices of an axis (at least one) is used, the same ones for the whole
    batch: drawn anew in each call while training, evenly spaced and always the same in eval mode.
    The batch of ``ave_spectrum`` and ``batch_matrix`` is that of all processes while training; in
    eval mode each volume is one by itself.

    Args:
        alpha, patch_factor, ave_spectrum, log_matrix, batch_matrix: :func:`focal_frequency_2d`.
        axes: axes of (B, C, D, H, W) along which to slice, among 2, 3, 4.
        ratio: share of the slices, in (0, 1].

    Raises:
        ValueError: axes or ratio outside these bounds.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        patch_factor: int = 1,
        axes: Sequence[int] = (2, 3, 4),
        ratio: float = 0.5,
        ave_spectrum: bool = False,
        log_matrix: bool = False,
        batch_matrix: bool = False,
    ) -> None:
        super().__init__()
        if not axes or not set(axes) <= {2, 3, 4}:
            raise ValueError(f"axes must be among 2, 3, 4, not {list(axes)}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], not {ratio}")
        self.alpha = alpha
        self.patch_factor = patch_factor
        self.axes = tuple(axes)
        self.ratio = ratio
        self.ave_spectrum = ave_spectrum
        self.log_matrix = log_matrix
        self.batch_matrix = batch_matrix

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
        """Return the mean over the axes, fp32; ``generator`` draws the slices while training.

        Raises:
            ValueError: a side that ``patch_factor`` does not divide.
        """
        if not self.training and (self.ave_spectrum or self.batch_matrix):
            pairs = zip(prediction.split(1), target.split(1), strict=True)
            return torch.stack([self._over_axes(a, b, generator) for a, b in pairs]).mean()
        return self._over_axes(prediction, target, generator)

    def _over_axes(
        self, prediction: Volume, target: Volume, generator: torch.Generator | None
    ) -> Tensor:
        terms: list[Tensor] = []
        for axis in self.axes:
            indices = self.slice_indices(prediction.shape[axis], generator).to(prediction.device)
            # Slices become channels, not images: then `ave_spectrum` averages over volumes alone,
            # never over different slices of one volume. Nothing else tells the two apart.
            slices = [
                volume.index_select(axis, indices).movedim(axis, 2).flatten(1, 2)
                for volume in (prediction, target)
            ]
            terms.append(
                focal_frequency_2d(
                    slices[0],
                    slices[1],
                    self.alpha,
                    self.patch_factor,
                    self.ave_spectrum,
                    self.log_matrix,
                    self.batch_matrix,
                    over_all=self.training,
                )
            )
        return torch.stack(terms).mean()


def build(config: FocalFrequencyLossConfig) -> FocalFrequencyLoss:
    """Return the loss of the section ``loss.focal_frequency``, unweighted."""
    return FocalFrequencyLoss(**config.model_dump(exclude={"weight"}))
