"""Files in, reconstructed files out."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from prod9.config import SlidingWindowConfig
from prod9.data.intensity import IntensityScale
from prod9.data.native_space import NOTHING, NativeVolume
from prod9.data.volume_files.npz import npz_headers, read_npz_array
from prod9.data.volume_files.stored_volume import SUFFIXES, StoredVolume, volume_suffix
from prod9.data.volume_files.write import refuse_overwrite, write_volume
from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.metrics.psnr import psnr
from prod9.metrics.ssim import ssim
from prod9.runtime.memory_limits import require_memory
from prod9.shapes import MAX_VOXELS
from prod9.sliding_window import decode, encode
from prod9.tokenizer import Tokenizer

_SSIM_WINDOW = 11
_TOKENS = ".tokens.npz"
# What a token file holds, and of which kinds: whole numbers, real numbers.
_KINDS = {"tokens": "iu", "sides": "iu", "affine": "f", "intensity": "f", "digest": "u"}
_SHAPES = {"sides": (3,), "affine": (4, 4), "intensity": (3,), "digest": (32,)}
# Of the tokens as int64; and of the voxels as float32: decoded, and in the source's intensities.
_CELL_BYTES, _VOXEL_BYTES = 8, 8


@dataclass(frozen=True)
class Reconstructed:
    """One reconstructed file; PSNR and SSIM on intensities scaled to [0, 1]."""

    path: Path
    psnr: float
    ssim: float | None
    """None where a side is shorter than SSIM's window."""

    @property
    def ssim_text(self) -> str:
        """SSIM as text."""
        return (
            "not defined (a side is below 11 voxels)" if self.ssim is None else f"{self.ssim:.4f}"
        )


def _stem(path: Path) -> str:
    """Return the file's name without its volume or token suffix."""
    for suffix in (*SUFFIXES[::-1], _TOKENS):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def _free(target: Path, overwrite: bool) -> Path:
    refuse_overwrite(target, overwrite)
    return target


def reconstruct_file(
    tokenizer: Tokenizer,
    path: Path,
    folder: Path,
    config: SlidingWindowConfig,
    *,
    save_tokens: bool,
    overwrite: bool,
) -> Reconstructed:
    """Encode and decode one volume; write it to ``folder`` with the source's geometry and dtype.

    Raises:
        Prod9Error: the file cannot be read, or the result would overwrite another.
    """
    name = f"{_stem(path)}_reconstructed"
    target = _free(folder / f"{name}{volume_suffix(path)}", overwrite)
    tokens_target = folder / f"{name}{_TOKENS}"
    if save_tokens:
        _free(tokens_target, overwrite)
    prepared = NativeVolume.read(path, tokenizer.spec.preprocessing)
    volume = prepared.tensor()
    tokens = encode(tokenizer, volume, config)
    output = decode(tokenizer, tokens, volume.shape[2:], config)
    small = min(volume.shape[2:]) < _SSIM_WINDOW
    result = Reconstructed(
        path=target,
        psnr=float(psnr(output, volume)),
        ssim=None if small else float(ssim(output, volume)),
    )
    del volume
    # A scan's background is known, and need not come out of the decoder.
    foreground = None if prepared.scale.background is None else prepared.foreground
    restored = prepared.restore(output[0, 0], foreground=foreground)
    write_volume(target, restored, like=prepared.raw, overwrite=overwrite)
    if save_tokens:
        _write_tokens(tokens_target, tokenizer, tokens[0].numpy(), prepared)
    return result


def _write_tokens(
    path: Path, tokenizer: Tokenizer, tokens: np.ndarray, prepared: NativeVolume
) -> None:
    raw, scale, placement = prepared.raw, prepared.scale, prepared.placement
    sides = raw.array.shape if placement is None else placement.shape
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            allow_pickle=False,
            tokens=tokens.astype(np.min_scalar_type(tokenizer.codebook_size - 1)),
            sides=np.array(sides),
            affine=raw.affine if placement is None else placement.affine,
            # NaN: no background that is kept apart.
            intensity=np.array(
                [scale.low, scale.high, np.nan if scale.background is None else scale.background]
            ),
            digest=np.frombuffer(bytes.fromhex(tokenizer.digest), np.uint8),
        )


def decode_tokens(
    tokenizer: Tokenizer, path: Path, folder: Path, config: SlidingWindowConfig, *, overwrite: bool
) -> Path:
    """Decode a file that :func:`reconstruct_file` wrote, to NIfTI, float32.

    Raises:
        Prod9Error: not such a file, made by another tokenizer, or of a volume that is larger than
            the memory.
    """
    headers = npz_headers(path)
    missing = _KINDS.keys() - headers.keys()
    if missing:
        raise Prod9Error(f"{path} is no token file: it lacks {', '.join(sorted(missing))}.")
    damaged = Prod9Error(f"{path} is damaged: its arrays do not fit together; make it again.")
    if any(headers[key].dtype.kind not in kinds for key, kinds in _KINDS.items()):
        raise damaged
    if any(headers[key].shape != shape for key, shape in _SHAPES.items()):
        raise damaged
    cells = math.prod(headers["tokens"].shape)
    if cells > MAX_VOXELS:
        raise damaged
    require_memory(_CELL_BYTES * cells, str(path))
    content = {key: read_npz_array(path, key) for key in _KINDS}
    digest = content["digest"].tobytes().hex()
    if digest != tokenizer.digest:
        raise Prod9Error(
            f"{path} was made by the tokenizer {digest[:12]}, not by {tokenizer.digest[:12]}; "
            "choose the --config of the tokenizer that made it."
        )
    tokens = torch.from_numpy(content["tokens"].astype(np.int64))[None]
    sides = [int(side) for side in content["sides"]]
    sound = (
        tokens.ndim == 4
        and tokens.numel() > 0
        and min(sides) > 0
        and math.prod(sides) <= MAX_VOXELS
        and tuple(tokens.shape[1:]) == tokenizer.grid(sides)
        and 0 <= int(tokens.min()) <= int(tokens.max()) < tokenizer.codebook_size
        and np.isfinite(content["affine"]).all()
        and np.isfinite(content["intensity"][:2]).all()
    )
    if not sound:
        raise damaged
    require_memory(_VOXEL_BYTES * math.prod(sides), f"the volume of {path}")
    volume = decode(tokenizer, tokens, sides, config)[0, 0].numpy()
    low, high, background = content["intensity"].tolist()
    scale = IntensityScale(low, high, None if np.isnan(background) else background)
    if scale.background is not None:
        volume = volume * (volume > NOTHING)
    target = folder / f"{_stem(path)}_decoded.nii.gz"
    raw = StoredVolume(
        array=volume, affine=content["affine"], dtype=np.dtype(np.float32), path=target, header=None
    )
    write_volume(target, scale.invert(volume), like=raw, overwrite=overwrite)
    return target
