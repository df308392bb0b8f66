"""A data set together with randomly changed copies of its items.

Stage 2 learns from tokens that are encoded once. With few subjects it would learn them by heart, so
each scan is encoded several times: as it is, and changed at random.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from prod9.config.data import SpatialAugmentationConfig
from prod9.data.crops import augment
from prod9.data.dataset import Dataset
from prod9.data.spatial import Warp, changes_shape


class AugmentedDataset(Dataset):
    """Version v of item s of ``data`` has the index ``s * versions + v``; version 0 is the item.

    Args:
        data: the items.
        change: how versions differ.
        versions: of each item, the item itself among them.
        seed: of the changes; all channels of a version are moved and mirrored alike.
    """

    def __init__(
        self, data: Dataset, change: SpatialAugmentationConfig, versions: int, seed: int
    ) -> None:
        self.data, self.change, self.versions, self.seed = data, change, versions, seed
        self.name, self.channels, self.shape = data.name, data.channels, data.shape
        self.class_names, self.covariates = data.class_names, data.covariates
        self.label_volumes = data.label_volumes
        self._volumes: dict[tuple[int, int], float] = {}
        self.spacing_mm, self.preprocessing = data.spacing_mm, data.preprocessing
        self.intensity, self.translation_order = data.intensity, data.translation_order
        self.names = tuple(f"{name}#{v}" for name in data.names for v in range(versions))
        self.subjects = tuple(subject for subject in data.subjects for _ in range(versions))

    def crop(
        self, item: int, channel: int, start: Sequence[int], sides: Sequence[int]
    ) -> np.ndarray:
        """Return voxels of a changed channel, float32.

        ``start`` and ``sides`` must be those of the whole volume where volumes are mirrored.
        """
        own, version = divmod(item, self.versions)
        if version == 0:
            return self.data.crop(own, channel, start, sides)
        geometry = np.random.default_rng([self.seed, own, version])
        warp = Warp.draw(geometry, self.change)
        crop = (
            warp.crop(self.data, own, channel, start, sides)
            if changes_shape(self.change)
            else self.data.crop(own, channel, start, sides)
        )
        change = self.change
        if self.channels[channel].kind == "labels":
            change = SpatialAugmentationConfig(flip=change.flip)
        intensity = np.random.default_rng([self.seed, own, version, channel])
        return augment(crop, change, self.flip_axes(item), geometry, intensity)

    def class_of(self, item: int) -> int:
        return self.data.class_of(item // self.versions)

    def covariates_of(self, item: int) -> tuple[float | None, ...]:
        """Return what is known of the item; volumes of labels are those in the copy."""
        known = [*self.data.covariates_of(item // self.versions)]
        if item % self.versions and changes_shape(self.change):
            for each in self.label_volumes:
                key = item, each.covariate
                if key not in self._volumes:
                    self._volumes[key] = self.volume_of(item, each)
                known[each.covariate] = self._volumes[key]
        return tuple(known)

    def flip_axes(self, item: int) -> tuple[int, ...]:
        return self.data.flip_axes(item // self.versions)

    def box(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the box of the unchanged item: changes are small."""
        return self.data.box(item // self.versions)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the items and what changes them."""
        own = f"{self.data.digest} {self.change!r} {self.versions} {self.seed}"
        return hashlib.sha256(own.encode()).hexdigest()
