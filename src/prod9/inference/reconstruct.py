"""Volumes encoded to tokens and decoded again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prod9.config import SlidingWindowConfig
from prod9.data.native_space import NOTHING, NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.data.volume_files.stored_volume import SUFFIXES, StoredVolume, volume_suffix
from prod9.data.volume_files.write import refuse_overwrite, write_nifti, write_volume
from prod9.inference.encoded import SUFFIX, EncodedVolume
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer

_SSIM_WINDOW = 11


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
    tokens = encode(tokenizer, native.tensor(), windows)
    return EncodedVolume.of(tokenizer, native, tokens[0].numpy())


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
    tokens = encode(tokenizer, volume, windows)
    output = decode(tokenizer, tokens, volume.shape[2:], windows)
    small = min(volume.shape[2:]) < _SSIM_WINDOW
    decibels = float(psnr(output, volume))
    similarity = None if small else float(ssim(output, volume))
    del volume
    # A scan's background is known, and need not come out of the decoder.
    foreground = None if native.scale.background is None else native.foreground
    restored = native.restore(output[0, 0], foreground=foreground)
    encoded = EncodedVolume.of(tokenizer, native, tokens[0].numpy())
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
    target = folder / f"{name}{volume_suffix(path)}"
    refuse_overwrite(target, overwrite)
    if save_tokens:
        refuse_overwrite(folder / f"{name}{SUFFIX}", overwrite)
    stored = read_volume(path)
    found = reconstruct(tokenizer, stored, windows)
    write_volume(target, found.volume, like=stored, overwrite=overwrite)
    if save_tokens:
        found.encoded.save(folder / f"{name}{SUFFIX}")
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
