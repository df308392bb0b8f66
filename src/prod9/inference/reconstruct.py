"""Volumes of any size encoded to tokens and decoded again, and their files."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prod9.config import SlidingWindowConfig
from prod9.data.intensity import IntensityScale
from prod9.data.native_space import NOTHING, NativeVolume
from prod9.data.volume_files.npz import read_npz_array
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import SUFFIXES, StoredVolume, volume_suffix
from prod9.data.volume_files.write import refuse_overwrite, write_nifti, write_volume
from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.runtime.memory_limits import require_memory
from prod9.shapes import MAX_VOXELS
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer

SUFFIX = ".tokens.npz"
_SSIM_WINDOW = 11
_VOXEL_BYTES = 8
"""Of a volume: decoded, and in the source's intensities, float32 each."""


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
    """Of the volume's intensities to [0, 1]."""
    codebook_size: int
    digest: str
    """Of the tokenizer."""

    def save(self, path: str | PathLike[str]) -> None:
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
    def load(cls, path: Path, tokenizer: Tokenizer) -> "EncodedVolume":
        """Read a token file of this tokenizer.

        Raises:
            Prod9Error: not such a file, made by another tokenizer, or of a volume that is larger
                than the memory.
        """
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
        require_memory(_VOXEL_BYTES * d * h * w, f"the volume of {path}")
        scale = IntensityScale(low, high, None if np.isnan(background) else background)
        return cls(tokens.astype(np.int64), (d, h, w), affine, scale, size, digest)


@dataclass(frozen=True)
class Reconstruction:
    """A volume after tokens; PSNR and SSIM are on intensities scaled to [0, 1]."""

    volume: np.ndarray
    """float32 (D, H, W): intensities, on the source's grid."""
    encoded: EncodedVolume
    psnr: float
    ssim: float | None
    """None where a side is shorter than SSIM's window."""


def encode_volume(
    tokenizer: Tokenizer, stored: StoredVolume, windows: SlidingWindowConfig
) -> EncodedVolume:
    """Encode a volume of any size.

    Raises:
        Prod9Error: it has no orientation that can be used.
    """
    native = NativeVolume.of(stored, tokenizer.spec.preprocessing)
    return _encoded(tokenizer, native, native.tensor(), windows)


def _encoded(
    tokenizer: Tokenizer, native: NativeVolume, volume: Tensor, windows: SlidingWindowConfig
) -> EncodedVolume:
    tokens = encode(tokenizer, volume, windows)[0].numpy()
    d, h, w = volume.shape[2:]
    affine = native.raw.affine if native.placement is None else native.placement.affine
    size, digest = tokenizer.codebook_size, tokenizer.digest
    return EncodedVolume(tokens, (d, h, w), affine, native.scale, size, digest)


def decode_volume(
    tokenizer: Tokenizer, encoded: EncodedVolume, windows: SlidingWindowConfig
) -> np.ndarray:
    """Decode to float32 (D, H, W) in the volume's intensities, on the network's grid."""
    tokens = torch.from_numpy(encoded.tokens)[None]
    volume = decode(tokenizer, tokens, encoded.sides, windows)[0, 0].numpy()
    if encoded.scale.background is not None:
        volume = volume * (volume > NOTHING)
    return encoded.scale.invert(volume)


def reconstruct(
    tokenizer: Tokenizer, stored: StoredVolume, windows: SlidingWindowConfig
) -> Reconstruction:
    """Encode and decode a volume of any size.

    Raises:
        Prod9Error: it has no orientation that can be used.
    """
    native = NativeVolume.of(stored, tokenizer.spec.preprocessing)
    volume = native.tensor()
    encoded = _encoded(tokenizer, native, volume, windows)
    tokens = torch.from_numpy(encoded.tokens)[None]
    output = decode(tokenizer, tokens, encoded.sides, windows)
    decibels = float(psnr(output, volume))
    similarity = None if min(encoded.sides) < _SSIM_WINDOW else float(ssim(output, volume))
    del volume
    # A scan's background is known, and need not come out of the decoder.
    foreground = None if native.scale.background is None else native.foreground
    restored = native.restore(output[0, 0], foreground=foreground)
    return Reconstruction(restored, encoded, decibels, similarity)


def reconstruct_file(
    tokenizer: Tokenizer,
    path: Path,
    folder: Path,
    windows: SlidingWindowConfig,
    *,
    save_tokens: bool,
    overwrite: bool,
) -> tuple[Path, Reconstruction]:
    """Run :func:`reconstruct` on a file; write the result with the source's geometry and dtype.

    Returns:
        The path that was written, and what was found.

    Raises:
        Prod9Error: the file cannot be read, or the result would overwrite another.
    """
    name = f"{_stem(path)}_reconstructed"
    target, tokens = folder / f"{name}{volume_suffix(path)}", folder / f"{name}{SUFFIX}"
    for each in (target, tokens) if save_tokens else (target,):
        refuse_overwrite(each, overwrite)
    stored = read_volume(path)
    found = reconstruct(tokenizer, stored, windows)
    write_volume(target, found.volume, like=stored, overwrite=overwrite)
    if save_tokens:
        found.encoded.save(tokens)
    return target, found


def decode_file(
    tokenizer: Tokenizer, path: Path, folder: Path, windows: SlidingWindowConfig, *, overwrite: bool
) -> Path:
    """Decode a token file to NIfTI, float32, on the network's grid; return its path.

    Raises:
        Prod9Error: as :meth:`EncodedVolume.load`, or the result would overwrite another file.
    """
    encoded = EncodedVolume.load(path, tokenizer)
    target = folder / f"{_stem(path)}_decoded.nii.gz"
    volume = decode_volume(tokenizer, encoded, windows)
    write_nifti(target, volume, encoded.affine, overwrite=overwrite)
    return target


def _stem(path: Path) -> str:
    """Return the file's name without its volume or token suffix."""
    for suffix in (*SUFFIXES[::-1], SUFFIX):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem
