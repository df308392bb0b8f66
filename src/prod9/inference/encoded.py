"""The tokens of a volume, with what it takes to decode them to where the volume was."""

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from prod9.data.intensity import IntensityScale
from prod9.data.volume_files.npz import read_npz_array
from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.runtime.memory_limits import require_memory
from prod9.shapes import MAX_VOXELS
from prod9.tokenizer import Tokenizer

SUFFIX = ".tokens.npz"
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
