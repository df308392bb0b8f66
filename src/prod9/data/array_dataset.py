"""A data set in memory."""

from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any, cast, get_args

import numpy as np

from prod9.data.dataset import Channel, ChannelKind, Covariate, Dataset
from prod9.data.volume_files.stored_volume import require_finite
from prod9.errors import Prod9Error


class ArrayDataset(Dataset):
    """Volumes in memory.

    Args:
        name: as of :class:`Dataset`, and so are all others that are not named here.
        images: (N, C, D, H, W); uint8, which is divided by 255, or float in [0, 1].
        names: one per item; numbered when left out.
        classes: index of each item's class, (N,); all 0 when left out.
        flips: axes of :meth:`flip_axes` for each class; none when left out.
        values: for each item, the value (or None) of each covariate.

    Raises:
        Prod9Error: arguments that do not fit together, or intensities outside [0, 1].
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
        if images.ndim != 5 or not len(images):
            raise Prod9Error(
                f"data set {name}: images must be (N, channels, D, H, W) with N > 0, not "
                f"{images.shape}."
            )
        d, h, w = images.shape[2:]
        self.shape = d, h, w
        self.names = names or tuple(f"{index:05d}" for index in range(len(images)))
        self.classes = np.zeros(len(images), np.int64) if classes is None else classes
        self.class_names, self.flips = class_names, flips or [()] * len(class_names)
        self.subjects, self.spacing_mm = subjects, spacing_mm
        self.covariates, self.values = covariates, values
        self.intensity = "uint8 / 255" if images.dtype == np.uint8 else "stored in [0, 1]"
        if problem := next(self._problems(), ""):
            raise Prod9Error(f"data set {name}: {problem}.")

    def _problems(self) -> Iterator[str]:
        """Yield what does not fit together; each check may rely on those before it."""
        n, channels, images = len(self.images), self.channels, self.images
        covariates = cast("Sequence[Any]", self.covariates)  # notebooks do not check types
        values = cast("Sequence[Any]", self.values)
        channel_names = [channel.name for channel in channels]
        if images.shape[1] != len(channels):
            yield f"images of {images.shape} do not have one channel for each of {channel_names}"
        for each in channels:
            if each.kind not in get_args(ChannelKind):
                yield f"the kind of channel {each.name} must be one of {get_args(ChannelKind)}"
        named = {"items": self.names, "classes": self.class_names, "channels": channel_names}
        for what, names in named.items():
            if len(set(names)) != len(names):
                yield f"two {what} have the same name"
        for what, given in {"names": self.names, "classes": self.classes}.items():
            if len(given) != n:
                yield f"{len(given)} {what} were given for {n} items"
        if len(self.subjects) not in (0, n):
            yield f"{len(self.subjects)} subjects for {n} items"
        if not set(np.unique(self.classes)) <= set(range(len(self.class_names))):
            yield f"classes must be indices of class_names, not {np.unique(self.classes)}"
        if not all(isinstance(each, Covariate) for each in covariates):
            yield "covariates must be a tuple of Covariate; give their values as values="
        if len(values) != (n if covariates else 0):
            yield f"values must have one row for each of {n} items if there are covariates"
        for name, row in zip(self.names, values, strict=False):
            numbers = isinstance(row, Sequence) and all(
                value is None or isinstance(value, Real) for value in row
            )
            if not numbers or len(row) != len(covariates):
                yield f"values of {name} must be {len(covariates)} numbers or None, not {row!r}"
        for index, channel in enumerate(channels):
            if channel.kind == "intensity" and images.dtype != np.uint8:
                voxels = images[:, index]
                voxels = voxels[np.isfinite(voxels)]  # others are named when they are read
                if voxels.size and (voxels.min() < -1e-3 or voxels.max() > 1.001):
                    yield (
                        f"intensities of {channel.name} must be in [0, 1] (or uint8), not "
                        f"[{voxels.min():g}, {voxels.max():g}]"
                    )

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
