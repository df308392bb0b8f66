"""``prod9.Tokenizer``: volumes to tokens and back; and the same on files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, Unpack

import numpy as np
import torch
from torch import Tensor

from prod9 import tokenizer as core
from prod9.config import SlidingWindowConfig
from prod9.data.intensity import IntensityScale
from prod9.data.native_space import NOTHING, NativeVolume
from prod9.data.volume_files.npz import read_npz_array
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import TOKENS, StoredVolume, result_suffix, volume_stem
from prod9.data.volume_files.write import refuse_overwrite, write_nifti, write_volume
from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.inference.extras import Extras
from prod9.inference.model_folder import is_model_folder, read_folder, save_folder
from prod9.inference.recorded import Recorded, device_of
from prod9.inference.volumes import PathLike, Result, VolumeLike, image_of, like, stored_volume
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.runtime.memory_limits import require_memory
from prod9.shapes import MAX_VOXELS
from prod9.sliding_window import decode, encode

_SSIM_WINDOW = 11


@dataclass(frozen=True)
class EncodedVolume:
    """The tokens of a volume, its geometry and its intensities.

    ``tokens`` are an int64 array (*grid) in [0, codebook size), ``sides`` the voxels of the volume
    on the network's grid, ``affine`` (4, 4) leads from there to mm.
    """

    tokens: np.ndarray
    sides: tuple[int, int, int]
    affine: np.ndarray
    scale: IntensityScale
    codebook_size: int
    digest: str
    """Of the tokenizer."""

    def save(self, path: PathLike) -> None:
        """Write a token file (its name ends in ``.tokens.npz``), whole or not at all."""
        scale = self.scale
        background = np.nan if scale.background is None else scale.background  # NaN: none
        with atomic_write(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                allow_pickle=False,
                tokens=self.tokens.astype(np.min_scalar_type(self.codebook_size - 1)),
                sides=np.array(self.sides),
                affine=self.affine,
                intensity=np.array([scale.low, scale.high, background]),
                digest=np.frombuffer(bytes.fromhex(self.digest), np.uint8),
            )

    @classmethod
    def load(cls, path: Path, tokenizer: core.Tokenizer) -> "EncodedVolume":
        """Read a token file of ``tokenizer``."""
        digest = read_npz_array(path, "digest").tobytes().hex()
        if digest != tokenizer.digest:
            raise Prod9Error(
                f"{path} was made by the tokenizer {digest[:12]}, not by {tokenizer.digest[:12]}; "
                "choose the --config of the tokenizer that made it."
            )
        keys = ("tokens", "sides", "affine", "intensity")
        tokens, sides, affine, intensity = (read_npz_array(path, key) for key in keys)
        size = tokenizer.codebook_size
        try:
            d, h, w = map(int, sides)
            low, high, background = map(float, intensity)
            sound = (
                min(d, h, w) > 0
                and d * h * w <= MAX_VOXELS
                and tokens.dtype.kind in "iu"
                and tokens.shape == tokenizer.grid((d, h, w))
                and 0 <= tokens.min() <= tokens.max() < size
                and affine.shape == (4, 4)
                and bool(np.isfinite([*affine.flat, low, high]).all())
            )
            if not sound:
                raise ValueError("its arrays do not fit together")
        except (TypeError, ValueError) as error:
            raise Prod9Error(f"{path} is damaged ({error}); make it again.") from error
        # Decoded, and in the source's intensities: float32 each.
        require_memory(8 * d * h * w, f"the volume of {path}")
        scale = IntensityScale(low, high, None if np.isnan(background) else background)
        return cls(tokens.astype(np.int64), (d, h, w), affine, scale, size, digest)


TokensLike: TypeAlias = EncodedVolume | np.ndarray | Tensor | PathLike


@dataclass(frozen=True)
class Reconstruction:
    """A volume after tokens; PSNR and SSIM are on intensities scaled to [0, 1]."""

    volume: np.ndarray
    """float32 (D, H, W): intensities, on the source's grid."""
    encoded: EncodedVolume
    psnr: float
    ssim: float | None
    """None where a side is shorter than SSIM's window."""


@dataclass(frozen=True)
class Tokenizer:
    """Volumes to tokens and back: a trained Stage 1.

    A volume is a path (to any format in docs/data.md), an array or tensor (D, H, W), or a nibabel
    image, of any size. Results are float32, in the volume's own intensities; they are arrays where
    the volume is an array or a tensor, else nibabel images with the volume's affine.
    """

    network: core.Tokenizer
    windows: SlidingWindowConfig

    @classmethod
    def load(cls, path: PathLike, device: str | None = None) -> "Tokenizer":
        """Read an ``autoencoder.pt``, or the tokenizer of a model folder.

        Args:
            path: the file that Stage 1 exported, or the folder.
            device: such as ``cpu`` or ``cuda:1``; a GPU, where there is one, when left out.

        Raises:
            Prod9Error: missing, damaged, or another kind of file.
        """
        if is_model_folder(Path(path)):
            found, recorded = read_folder(Path(path), device_of(device))
            own = found if isinstance(found, core.Tokenizer) else found.tokenizer
            return cls(own, recorded.sliding_window)
        network = core.Tokenizer.load(Path(path), device_of(device))
        return cls(network, Recorded.of(network.spec.config_yaml).sliding_window)

    def save(self, folder: PathLike, *, overwrite: bool = False, **extras: Unpack[Extras]) -> None:
        """Write the tokenizer as a folder that :func:`load` reads; arguments as of ``Model.save``.

        Raises:
            Prod9Error: the folder holds a model, or foreign files under its names.
        """
        recorded = Recorded(sliding_window=self.windows)
        save_folder(self.network, recorded, Path(folder), extras, overwrite=overwrite)

    @property
    def codebook_size(self) -> int:
        """Number of codes V; tokens are in [0, V)."""
        return self.network.codebook_size

    def encode(self, volume: VolumeLike, channel: str | None = None) -> EncodedVolume:
        """Encode a volume; the result's ``tokens`` are an int64 array (*grid).

        ``channel`` is its name, which a model needs whose channels are scaled differently.

        Raises:
            Prod9Error: the volume cannot be read, or is not one channel of finite real numbers.
        """
        native = self._native(stored_volume(volume, "the volume"), channel)
        return self._encoded(native, native.tensor())

    def decode(
        self,
        tokens: EncodedVolume | np.ndarray | Tensor | PathLike,
        shape: Sequence[int] | None = None,
    ) -> Result:
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
            return image_of(self.volume_of(tokens), tokens.affine)
        grid, network = torch.as_tensor(tokens).cpu(), self.network
        whole = not (grid.is_floating_point() or grid.is_complex() or grid.dtype == torch.bool)
        if grid.ndim != 3 or grid.numel() == 0 or not whole:
            raise Prod9Error(
                f"tokens are whole numbers (D, H, W), not {grid.dtype} {[*grid.shape]}."
            )
        if not 0 <= int(grid.min()) <= int(grid.max()) < self.codebook_size:
            raise Prod9Error(f"tokens are in [0, {self.codebook_size}); one of these is not.")
        if shape is None and grid.shape == network.grid():
            shape = network.spec.volume_shape
        shape = shape or [network.autoencoder.stride * side for side in grid.shape]
        if network.grid(shape) != tuple(grid.shape):
            raise Prod9Error(f"a volume of {[*shape]} has {[*network.grid(shape)]} tokens.")
        return decode(network, grid.long()[None], shape, self.windows)[0, 0].numpy()

    def reconstruct(self, volume: VolumeLike, channel: str | None = None) -> Result:
        """Encode and decode a volume; the result is on its grid, with its affine.

        Raises:
            Prod9Error: as :meth:`encode`.
        """
        stored = stored_volume(volume, "the volume")
        return like(volume, self.measured(stored, channel).volume, stored.affine)

    def measured(self, stored: StoredVolume, channel: str | None = None) -> Reconstruction:
        """Encode and decode a volume, and compare."""
        native = self._native(stored, channel)
        volume = native.tensor()
        encoded = self._encoded(native, volume)
        tokens = torch.from_numpy(encoded.tokens)[None]
        output = decode(self.network, tokens, encoded.sides, self.windows)
        decibels = float(psnr(output, volume))
        similarity = None if min(encoded.sides) < _SSIM_WINDOW else float(ssim(output, volume))
        del volume
        # A scan's background is known, and need not come out of the decoder.
        foreground = None if native.scale.background is None else native.foreground
        restored = native.restore(output[0, 0], foreground=foreground)
        return Reconstruction(restored, encoded, decibels, similarity)

    def _native(self, stored: StoredVolume, channel: str | None) -> NativeVolume:
        return NativeVolume.of(stored, self.network.spec.preprocessing, channel)

    def _encoded(self, native: NativeVolume, volume: Tensor) -> EncodedVolume:
        tokens = encode(self.network, volume, self.windows)[0].numpy()
        d, h, w = volume.shape[2:]
        affine = native.raw.affine if native.placement is None else native.placement.affine
        size, digest = self.codebook_size, self.network.digest
        return EncodedVolume(tokens, (d, h, w), affine, native.scale, size, digest)

    def volume_of(self, encoded: EncodedVolume) -> np.ndarray:
        """Decode to float32 (D, H, W) in the volume's intensities, on the network's grid."""
        if encoded.digest != self.network.digest:
            raise Prod9Error("these tokens were made by another tokenizer; decode with that.")
        tokens = torch.from_numpy(encoded.tokens)[None]
        volume = decode(self.network, tokens, encoded.sides, self.windows)[0, 0].numpy()
        if encoded.scale.background is not None:
            volume = volume * (volume > NOTHING)
        return encoded.scale.invert(volume)


def reconstruct_file(
    tokenizer: Tokenizer,
    path: Path,
    folder: Path,
    *,
    channel: str | None = None,
    save_tokens: bool,
    overwrite: bool,
) -> tuple[Path, Reconstruction]:
    """Reconstruct a file; write the result, with the source's geometry and type, and its tokens.

    Returns:
        The path that was written, and what was found.
    """
    name = f"{volume_stem(path)}_reconstructed"
    target, tokens = folder / f"{name}{result_suffix(path)}", folder / f"{name}{TOKENS}"
    for each in (target, tokens) if save_tokens else (target,):
        refuse_overwrite(each, overwrite)
    stored = read_volume(path)
    found = tokenizer.measured(stored, channel)
    write_volume(target, found.volume, like=stored, overwrite=overwrite)
    if save_tokens:
        found.encoded.save(tokens)
    return target, found


def encode_file(
    tokenizer: Tokenizer, path: Path, folder: Path, *, channel: str | None = None, overwrite: bool
) -> tuple[Path, EncodedVolume]:
    """Encode a file; return the path of its token file, and its tokens."""
    target = folder / f"{volume_stem(path)}{TOKENS}"
    refuse_overwrite(target, overwrite)
    encoded = tokenizer.encode(path, channel)
    encoded.save(target)
    return target, encoded


def decode_file(tokenizer: Tokenizer, path: Path, folder: Path, *, overwrite: bool) -> Path:
    """Decode a token file to NIfTI, float32, on the network's grid; return its path."""
    encoded = EncodedVolume.load(path, tokenizer.network)
    target, volume = folder / f"{volume_stem(path)}_decoded.nii.gz", tokenizer.volume_of(encoded)
    write_nifti(target, volume, encoded.affine, overwrite=overwrite)
    return target
