"""The Stage 1 network: encoder, FSQ, decoder. Any volume size goes in and comes back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prod9.fsq import FSQ
from prod9.networks.blocks import AttentionBlock, Downsample, ResidualBlock, Upsample
from prod9.networks.cpu_kernels.conv import Conv3d
from prod9.networks.cpu_kernels.norm import NormSiLU
from prod9.shapes import Codes, Latent, Volume


@dataclass(frozen=True)
class Reconstruction:
    """A decoded volume (same shape as the input, not clamped) and the codes it came from."""

    volume: Volume
    codes: Codes


class Layers(nn.Sequential):
    """One module after another; ``torch.compile`` sees one graph, where it skips PyTorch's own."""

    def forward(self, input: Tensor) -> Tensor:
        for layer in self:
            input = layer(input)
        return input


class Autoencoder(nn.Module):
    """Convolutional autoencoder with FSQ in the middle.

    Args:
        in_channels: channels of a volume.
        levels: FSQ levels, one per latent channel.
        num_channels: width per resolution level; each further level halves the sides.
        attention_levels: self-attention after a level's residual blocks, or none anywhere.
        num_res_blocks: residual blocks per level, in the encoder and again in the decoder.
        norm_num_groups: groups of the group norms, at most.
        stem_stride: 2 halves the sides in the first convolution already.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        levels: Sequence[int],
        num_channels: Sequence[int],
        attention_levels: Sequence[bool] | None,
        num_res_blocks: int,
        norm_num_groups: int,
        stem_stride: int,
    ) -> None:
        super().__init__()
        widths, groups = list(num_channels), norm_num_groups
        attention = attention_levels or [False] * len(widths)
        self.stride = stem_stride * 2 ** (len(widths) - 1)
        self.fsq = FSQ(levels)

        halve = stem_stride == 2
        stem = Downsample(in_channels, widths[0]) if halve else Conv3d(in_channels, widths[0], 3)
        encoder: list[nn.Module] = [stem]
        for level, width in enumerate(widths):
            if level:
                encoder.append(Downsample(widths[level - 1], width))
            encoder += [ResidualBlock(width, width, groups) for _ in range(num_res_blocks)]
            if attention[level]:
                encoder.append(AttentionBlock(width, groups))
        encoder += [NormSiLU(widths[-1], groups), nn.Conv3d(widths[-1], len(levels), 1)]

        decoder: list[nn.Module] = [Conv3d(len(levels), widths[-1], 3)]
        for level, width in reversed([*enumerate(widths)]):
            if attention[level]:
                decoder.append(AttentionBlock(width, groups))
            decoder += [ResidualBlock(width, width, groups) for _ in range(num_res_blocks)]
            if level:
                decoder.append(Upsample(width, widths[level - 1]))
        decoder.append(NormSiLU(widths[0], groups))
        self.last = Upsample(widths[0], in_channels) if halve else Conv3d(widths[0], in_channels, 3)
        self.encoder = Layers(*encoder)
        self.decoder = Layers(*decoder)
        for weight in self.parameters():
            if weight.ndim == 5:  # convolutions are up to twice as fast with channels last
                weight.data = weight.data.to(memory_format=torch.channels_last_3d)

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last convolution, where the adaptive weight is measured."""
        return (self.last.conv if isinstance(self.last, Upsample) else self.last).weight

    def grid(self, sides: Sequence[int]) -> tuple[int, ...]:
        """Sides of a volume in voxels -> sides of its token grid."""
        return tuple(-(-side // self.stride) for side in sides)

    def encode(self, x: Volume) -> Latent:
        """Volume -> latent before quantisation, shape (B, len(levels), *grid).

        Sides that are not multiples of the stride are padded with the border's values.
        """
        missing = [(-side) % self.stride for side in x.shape[2:]]
        if any(missing):
            pads = [half for m in reversed(missing) for half in (m // 2, m - m // 2)]
            x = F.pad(x, pads, mode="replicate")
        return self.encoder(x.contiguous(memory_format=torch.channels_last_3d))

    def decode(self, codes: Codes, sides: Sequence[int] | None = None) -> Volume:
        """Codes -> volume of ``sides`` voxels (default: the grid times the stride), not clamped."""
        x = self.last(self.decoder(codes.to(next(self.last.parameters()).dtype)))
        if sides is None:
            return x
        starts = [(-side) % self.stride // 2 for side in sides]
        d, h, w = (slice(start, start + side) for start, side in zip(starts, sides, strict=True))
        return x[:, :, d, h, w]

    def forward(self, x: Volume) -> Reconstruction:
        codes = self.fsq.quantize(self.encode(x))
        return Reconstruction(self.decode(codes, x.shape[2:]), codes)
