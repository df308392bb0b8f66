"""MedicalNet's 3D ResNet-10 backbone (Chen et al. 2019, arXiv 1904.00625) and its weights on disk.

Submodules are named after the keys of the published file, ``resnet_10_23dataset.pth``.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from prod9.errors import Prod9Error
from prod9.torch_files import read_plain


class DilatedConv3d(nn.Conv3d):
    """A 3^3 convolution without bias, padded by its dilation: sides are divided by the stride.

    Where the dilation reaches beyond a small grid, all taps but the middle one see only padding:
    there it is a 1^3 convolution, with a twenty-seventh of the work.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int) -> None:
        super().__init__(
            in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:
        if self.dilation[0] < max(input.shape[2:]):
            return super().forward(input)
        return F.conv3d(input, self.weight[:, :, 1:2, 1:2, 1:2], stride=self.stride)


class BasicBlock(nn.Module):
    """Two 3^3 convolutions with batch norm and a skip connection (He et al. 2015).

    (B, C_in, D, H, W) -> (B, C_out, D/stride, H/stride, W/stride), sides rounded up.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = DilatedConv3d(in_channels, out_channels, stride, dilation)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = DilatedConv3d(out_channels, out_channels, 1, dilation)
        self.bn2 = nn.BatchNorm3d(out_channels)
        self.downsample = nn.Sequential()
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm3d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(h)) + self.downsample(x)).relu()


class MedicalNetResNet10(nn.Module):
    """Features of the last stage: (B, 1, D, H, W) -> (B, 512, D/8, H/8, W/8), sides rounded up.

    Stages 3 and 4 dilate instead of striding. 14,355,520 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.maxpool = nn.MaxPool3d(3, stride=2, padding=1)
        # A sequence of one block each: the published keys read `layer1.0.conv1.weight`.
        self.layer1 = nn.Sequential(BasicBlock(64, 64, stride=1, dilation=1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, stride=2, dilation=1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, stride=1, dilation=2))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, stride=1, dilation=4))

    def forward(self, x: Float[Tensor, "b 1 d h w"]) -> Float[Tensor, "b 512 fd fh fw"]:
        """Expects intensities of mean 0 and standard deviation 1."""
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the backbone's weights: a state dict for :class:`MedicalNetResNet10`, fp32, on the CPU.

    Accepts ``{"state_dict": {...}}`` and the bare dict, keys with and without ``module.``; the
    segmentation head (``conv_seg.*``) is left out.

    Raises:
        Prod9Error: no such file, damaged, Python objects inside, or another network's weights.
    """
    if not path.is_file():
        raise Prod9Error(f"there is no file {path}; give the path of MedicalNet's weights.")
    content = read_plain(path, "fetch it again, or save the plain state dict with torch.save")
    if isinstance(content, Mapping) and "state_dict" in content:
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise Prod9Error(f"{path} holds no state dict; give MedicalNet's resnet_10_23dataset.pth.")
    found = {str(key).removeprefix("module."): value for key, value in content.items()}
    found = {key: value for key, value in found.items() if not key.startswith("conv_seg.")}
    with torch.device("meta"):
        expected = MedicalNetResNet10().state_dict()
    for key in expected | found:
        shapes = [getattr(weights.get(key), "shape", None) for weights in (found, expected)]
        if shapes[0] != shapes[1]:
            raise Prod9Error(
                f"{path} is not MedicalNet's ResNet-10: `{key}` is missing, unknown or of another "
                "shape; give resnet_10_23dataset.pth."
            )
    return {key: found[key].to(value.dtype) for key, value in expected.items()}
