"""``prod9.Tokenizer``: volumes to tokens and back."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from prod9 import tokenizer as core
from prod9.api.recorded import Recorded, device_of
from prod9.api.volumes import Result, VolumeLike, image_of, like, stored_volume
from prod9.config import SlidingWindowConfig
from prod9.errors import Prod9Error
from prod9.inference.reconstruct import (
    EncodedVolume,
    decode_volume,
    encode_volume,
    reconstruct,
)
from prod9.sliding_window import decode as decode_windows

PathLike: TypeAlias = str | os.PathLike[str]
TokensLike: TypeAlias = EncodedVolume | np.ndarray | Tensor | PathLike


@dataclass(frozen=True)
class Tokenizer:
    """Volumes to tokens and back: a trained Stage 1.

    A volume is a path (NIfTI or npy), an array or tensor (D, H, W), or a nibabel image, of any
    size. Results are float32, in the volume's own intensities; they are arrays where the volume is
    an array or a tensor, else nibabel images with the volume's affine.
    """

    network: core.Tokenizer
    windows: SlidingWindowConfig

    @classmethod
    def load(cls, path: PathLike, device: str | None = None) -> "Tokenizer":
        """Read an ``autoencoder.pt``.

        Args:
            path: the file that Stage 1 exported.
            device: such as ``cpu`` or ``cuda:1``; a GPU, where there is one, when left out.

        Raises:
            Prod9Error: missing, damaged, or another kind of file.
        """
        network = core.Tokenizer.load(Path(path), device_of(device))
        return cls(network, Recorded.of(network.spec.config_yaml).sliding_window)

    @property
    def codebook_size(self) -> int:
        """Number of codes V; tokens are in [0, V)."""
        return self.network.codebook_size

    def encode(self, volume: VolumeLike) -> EncodedVolume:
        """Encode a volume; the result's ``tokens`` are an int64 array (*grid).

        Raises:
            Prod9Error: the volume cannot be read, or is not one channel of finite real numbers.
        """
        stored = stored_volume(volume, "the volume")
        return encode_volume(self.network, stored, self.windows)

    def decode(self, tokens: TokensLike, shape: Sequence[int] | None = None) -> Result:
        """Decode tokens.

        Args:
            tokens: what :meth:`encode` returned, or a path to a ``.tokens.npz`` file: the result is
                an image on the network's grid (axes RAS+, the training spacing). Or an integer
                array (*grid), from wherever: the result is an array in [0, 1].
            shape: voxels per side of the volume of an array of tokens; by default the training
                volumes', or, of another grid, its cells times the stride.

        Raises:
            Prod9Error: not tokens of this tokenizer.
        """
        if isinstance(tokens, str | os.PathLike):
            tokens = EncodedVolume.load(Path(tokens), self.network)
        if isinstance(tokens, EncodedVolume):
            if tokens.digest != self.network.digest:
                raise Prod9Error("these tokens were made by another tokenizer; decode with that.")
            volume = decode_volume(self.network, tokens, self.windows)
            return image_of(volume, tokens.affine)
        grid = torch.as_tensor(tokens).cpu()
        whole = not (grid.is_floating_point() or grid.is_complex() or grid.dtype == torch.bool)
        if grid.ndim != 3 or grid.numel() == 0 or not whole:
            raise Prod9Error(
                f"tokens are whole numbers (D, H, W), not {grid.dtype} {[*grid.shape]}."
            )
        if not 0 <= int(grid.min()) <= int(grid.max()) < self.codebook_size:
            raise Prod9Error(f"tokens are in [0, {self.codebook_size}); one of these is not.")
        network, sides = self.network, shape
        if sides is None and grid.shape == network.grid():
            sides = network.spec.volume_shape
        sides = sides or [network.autoencoder.stride * side for side in grid.shape]
        if network.grid(sides) != tuple(grid.shape):
            raise Prod9Error(f"a volume of {[*sides]} has {[*network.grid(sides)]} tokens.")
        return decode_windows(network, grid.long()[None], sides, self.windows)[0, 0].numpy()

    def reconstruct(self, volume: VolumeLike) -> Result:
        """Encode and decode a volume; the result is on its grid, with its affine.

        Raises:
            Prod9Error: as :meth:`encode`.
        """
        stored = stored_volume(volume, "the volume")
        found = reconstruct(self.network, stored, self.windows)
        return like(volume, found.volume, stored.affine)
