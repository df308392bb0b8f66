"""A file of the user's, brought to a tokenizer's geometry and intensities, and back."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prod9.config.data import FolderPreprocessingConfig, PreprocessingConfig
from prod9.data.geometry import Placement
from prod9.data.intensity import IntensityScale
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error

NOTHING = 0.02
"""A decoder's background is nearly 0, not exactly: intensities up to here count as background."""


def window_of(
    preprocessing: PreprocessingConfig, channel: str | None, name: str
) -> tuple[float, float] | None:
    """Return the stored values of a channel that become 0 and 1; None for percentiles.

    Raises:
        Prod9Error: no channel is given for the volume ``name``, and not all are scaled alike.
    """
    if not isinstance(preprocessing, FolderPreprocessingConfig):
        return None
    if channel is not None:
        return preprocessing.windows.get(channel)
    windows = {preprocessing.windows.get(each) for each in preprocessing.channels}
    if len(windows) > 1:
        raise Prod9Error(
            f"the model scales its channels differently; say which {name} is (--channel): "
            f"{', '.join(preprocessing.channels)}."
        )
    return next(iter(windows))


@dataclass(frozen=True)
class NativeVolume:
    """A volume as it was stored, and the way to a network's input."""

    raw: StoredVolume
    scale: IntensityScale
    placement: Placement | None
    """None where volumes are taken on the grid on which they are stored."""

    @classmethod
    def of(
        cls,
        raw: StoredVolume,
        preprocessing: PreprocessingConfig | None,
        channel: str | None = None,
    ) -> "NativeVolume":
        """Return a volume for a tokenizer with this ``preprocessing``.

        ``channel`` is its name; it may be left out where all are scaled alike.

        Raises:
            Prod9Error: the channel is needed, and not given.
        """
        if preprocessing is None:
            return cls(raw, IntensityScale.of(raw), None)
        placement = Placement.of(
            raw.array.shape, raw.affine, preprocessing.spacing_mm, str(raw.path)
        )
        if (window := window_of(preprocessing, channel, str(raw.path))) is not None:
            return cls(raw, IntensityScale(*window), placement)
        return cls(raw, IntensityScale.of(raw, preprocessing.percentiles), placement)

    @property
    def foreground(self) -> np.ndarray:
        """Bool, of the stored shape: the voxels that are not 0."""
        return self.raw.array != 0

    def array(self) -> np.ndarray:
        """Return the network's input: float32 (D, H, W) in [0, 1]."""
        scaled = self.scale.apply(self.raw.array)
        return scaled if self.placement is None else self.placement.apply(scaled)

    def tensor(self) -> Tensor:
        """Return the network's input: float32 (1, 1, D, H, W) in [0, 1]."""
        return torch.from_numpy(np.ascontiguousarray(self.array()))[None, None]

    def on_grid(self, inside: np.ndarray) -> np.ndarray:
        """Bring a mask of the stored shape to the network's grid: float32, above 0 in any of it."""
        array = np.ascontiguousarray(inside, np.float32)
        return array if self.placement is None else self.placement.apply(array)

    def restore(
        self,
        volume: Tensor,
        scale: IntensityScale | None = None,
        foreground: np.ndarray | None = None,
    ) -> np.ndarray:
        """Bring a network's volume back to the stored grid and to intensities.

        Args:
            volume: (D, H, W) in [0, 1], of :meth:`array`'s shape.
            scale: of the intensities; this volume's own when left out.
            foreground: bool, of the stored shape; all else gets the background's value.
        """
        array = volume.numpy()
        if self.placement is not None:
            array = self.placement.invert(array)
        return (scale or self.scale).invert(array, foreground)
