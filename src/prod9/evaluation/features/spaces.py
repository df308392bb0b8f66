"""Feature spaces: networks that turn a volume into a vector, so that sets can be compared."""

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.config.evaluation import FeatureSpaceKey
from prod9.data.volume_sets.volume_set import VolumeSet
from prod9.files import hexdigest
from prod9.losses.medicalnet import MedicalNetResNet10, load_weights
from prod9.losses.perceptual import normalize_intensity

SMALLEST_SIDE = 48
"""MedicalNet's last grid has an eighth of the sides: of 28 voxels 4 cells, mostly padding."""
LARGEST_SIDE = 128
_VOXELS_AT_ONCE = 1 << 23
CPU = torch.device("cpu")


@dataclass(frozen=True)
class FeatureSpace:
    """A network that turns a volume into a vector. Distances compare only within one space."""

    key: FeatureSpaceKey
    name: str
    """For tables: network, what it was trained on, what goes in."""
    dimensions: int
    weights_sha256: str
    embed: Callable[[Tensor], Tensor]
    """(B, 1, D, H, W) in [0, 1], on the CPU -> fp32 (B, dimensions), without gradient.

    Each volume goes through the network by itself: its batch does not change its features.
    """
    device: str = "cpu"
    """Kind of device that the network is on; others differ in the last digits."""


def features_of(
    space: FeatureSpace,
    volumes: VolumeSet,
    on_volume: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Return the features of all volumes in order, float64 (N, dimensions).

    Volumes are read a few at a time (32 MiB of voxels, at least one). ``on_volume`` is called after
    each volume with the number of volumes done.
    """
    features = torch.empty(len(volumes), space.dimensions, dtype=torch.float64)
    done = 0
    for batch in volumes.batches(max(1, _VOXELS_AT_ONCE // math.prod(volumes.shape))):
        for volume in batch.split(1):
            features[done] = space.embed(volume)[0]
            done += 1
            on_volume(done)
    return features


def one_by_one(
    embed: Callable[[Tensor], Tensor], device: torch.device = CPU
) -> Callable[[Tensor], Tensor]:
    """Return the ``embed`` of a :class:`FeatureSpace` from that of one volume on ``device``.

    ``embed``: (1, 1, D, H, W) -> (1, n).
    """

    def embed_batch(volumes: Tensor) -> Tensor:
        with torch.no_grad(), in_full_precision(device):
            return torch.cat([embed(part.to(device)).cpu() for part in volumes.float().split(1)])

    return embed_batch


@contextmanager
def in_full_precision(device: torch.device) -> Generator[None]:
    """Convolve in fp32 with a deterministic algorithm; GPUs use TF32 (10 bits) by default."""
    with (
        torch.autocast(device.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        yield


def resized(volume: Tensor) -> Tensor:
    """Bring a volume (1, 1, D, H, W) to sides that MedicalNet can use and memory can hold.

    If a side is above 128, all sides shrink by one factor, voxels averaged; then each side below 48
    is enlarged to 48, trilinearly.
    """
    sides = volume.shape[2:]
    factor = min(1.0, LARGEST_SIDE / max(sides))
    if factor < 1:
        d, h, w = (max(1, round(side * factor)) for side in sides)
        volume = F.adaptive_avg_pool3d(volume, (d, h, w))
    larger = [max(SMALLEST_SIDE, side) for side in volume.shape[2:]]
    if larger != [*volume.shape[2:]]:
        volume = F.interpolate(volume, larger, mode="trilinear", align_corners=False)
    return volume


def medicalnet_space(path: Path, device: torch.device = CPU) -> FeatureSpace:
    """Return the features of MedicalNet's ResNet-10 (23 medical data sets, segmentation).

    A volume is resized (:func:`resized`) and standardised, and the 512 features of the last grid
    are averaged over its cells. This space does not see global brightness and contrast.

    Args:
        path: of ``resnet_10_23dataset.pth``.
        device: of the network.

    Raises:
        Prod9Error: as :func:`prod9.losses.medicalnet.load_weights`.
    """
    network = MedicalNetResNet10()
    network.load_state_dict(load_weights(path))
    network.eval().requires_grad_(False).to(device)

    def embed(volume: Tensor) -> Tensor:
        return network(normalize_intensity(resized(volume))).mean((2, 3, 4))

    return FeatureSpace(
        key="medicalnet",
        name="MedicalNet ResNet-10 (23 medical data sets), whole volume, intensities standardised",
        dimensions=512,
        weights_sha256=hexdigest(path, "sha256"),
        embed=one_by_one(embed, device),
        device=device.type,
    )
