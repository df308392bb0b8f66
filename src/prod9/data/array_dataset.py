"""A data set in memory."""

from collections.abc import Sequence

import numpy as np

from prod9.data.dataset import Channel, Covariate, Dataset
from prod9.data.volume_files.stored_volume import require_finite


class ArrayDataset(Dataset):
    """Volumes in memory.

    Args:
        name: as of :class:`Dataset`, and so are all others that are not named here.
        images: (N, C, D, H, W); uint8, which is divided by 255, or float in [0, 1].
        names: one per item; numbered when left out.
        classes: index of each item's class, (N,); all 0 when left out.
        flips: axes of :meth:`flip_axes` for each class; none when left out.
        values: of the covariates, for each item.
    """

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        channels: tuple[Channel, ...] = (Channel("volume"),),
        *,
        names: Sequence[str] | None = None,
        classes: np.ndarray | None = None,
        class_names: tuple[str, ...] = ("all",),
        flips: Sequence[tuple[int, ...]] | None = None,
        subjects: Sequence[str] = (),
        covariates: tuple[Covariate, ...] = (),
        values: Sequence[tuple[float | None, ...]] = (),
        spacing_mm: tuple[float, float, float] | None = None,
    ) -> None:
        self.name, self.images, self.channels = name, images, channels
        d, h, w = images.shape[2:]
        self.shape = d, h, w
        self.names = names or tuple(f"{index:05d}" for index in range(len(images)))
        self.classes = np.zeros(len(images), np.int64) if classes is None else classes
        self.class_names, self.flips = class_names, flips or [()] * len(class_names)
        self.subjects, self.spacing_mm = subjects, spacing_mm
        self.covariates, self.values = covariates, values
        self.intensity = "uint8 / 255" if images.dtype == np.uint8 else "stored in [0, 1]"

    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return voxels of a channel, float32.

        Raises:
            Prod9Error: the volume has NaN or infinite voxels; the sentence names it.
        """
        where = tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))
        part = self.images[(item, channel, *where)]
        if part.dtype == np.uint8 and self.channels[channel].kind == "intensity":
            return np.divide(part, 255, dtype=np.float32)
        part = part.astype(np.float32)
        require_finite(part, self.name_of(item, channel))
        return part

    def class_of(self, item: int) -> int:
        return int(self.classes[item])

    def covariates_of(self, item: int) -> tuple[float | None, ...]:
        return self.values[item] if self.values else super().covariates_of(item)

    def flip_axes(self, item: int) -> tuple[int, ...]:
        return self.flips[self.class_of(item)]
