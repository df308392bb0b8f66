"""Perceptual loss: distance between MedicalNet features of two volumes.

It computes what MONAI's ``MedicalNetPerceptualSimilarity`` does (LPIPS, Zhang et al. 2018, arXiv
1801.03924, without its learned weights; features of Chen et al. 2019, arXiv 1904.00625), but a
constant volume has a finite loss.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prod9.config.loss import PerceptualLossConfig
from prod9.losses.medicalnet import MedicalNetResNet10
from prod9.runtime.distributed import total, total_with_gradient, world_size
from prod9.shapes import Volume

STD_FLOOR = 1e-3
"""Smallest standard deviation to divide by: a thousandth of the range of a volume in [0, 1]."""


def normalize_intensity(volume: Volume, *, over_all: bool = False) -> Volume:
    """(x - mean) / std over the whole batch, as MedicalNet was trained (and as MONAI does).

    The floor under the standard deviation keeps a constant volume's loss and gradient finite.
    ``over_all``: over the batch of all processes, which must all call.
    """
    if not over_all or world_size() == 1:
        return (volume - volume.mean()) / volume.std().clamp_min(STD_FLOOR)
    count = total(torch.tensor(float(volume.numel()), device=volume.device))
    centred = volume - total_with_gradient(volume.sum()) / count
    variance = total_with_gradient(centred.square().sum()) / (count - 1)
    return centred / variance.sqrt().clamp_min(STD_FLOOR)


class MedicalNetPerceptualLoss(nn.Module):
    """Mean squared distance of unit-length MedicalNet features, for volumes in [0, 1].

    The network is frozen and not a registered submodule: it is in no ``state_dict`` or export, no
    optimizer sees its parameters, and ``train()`` does not reach it. It follows the volumes from
    device to device and stays fp32: bf16 is too coarse for the features' squares.

    Intensities are normalised over the batch of all processes while training, and for each volume
    by itself in eval mode.

    Args:
        weights: state dict of :class:`MedicalNetResNet10`, see
            :func:`prod9.losses.medicalnet.load_weights`.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        network = MedicalNetResNet10()
        network.load_state_dict(weights)
        # Inside a tuple, where nn.Module does not look for submodules.
        self._unregistered = (network.eval().requires_grad_(False),)

    @property
    def network(self) -> MedicalNetResNet10:
        """The frozen backbone."""
        return self._unregistered[0]

    def features(self, volume: Volume) -> Float[Tensor, "b features fd fh fw"]:
        """Unit-length features, C * 512 a position; each channel passes through by itself."""
        b, c = volume.shape[:2]
        x = volume.float()
        if x.device != self.network.conv1.weight.device:
            self.network.to(x.device)
        if self.training:
            x = normalize_intensity(x, over_all=True)
        else:  # processes validate unequal numbers of batches, and cannot wait for each other
            std, mean = torch.std_mean(x, (1, 2, 3, 4), keepdim=True)
            x = (x - mean) / std.clamp_min(STD_FLOOR)
        x = x.flatten(0, 1)[:, None]  # (B C, 1, D, H, W)
        features = self.network(x).unflatten(0, (b, c)).flatten(1, 2)
        return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()

    def forward(
        self, prediction: Volume, target: Volume, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Return the loss, fp32, with a gradient for ``prediction`` alone; nothing is random."""
        with torch.autocast(prediction.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.features(target)
            return (self.features(prediction) - wanted).square().sum(1).mean()


def untrained(config: PerceptualLossConfig) -> MedicalNetPerceptualLoss:
    """Return the loss with random weights."""
    return MedicalNetPerceptualLoss(MedicalNetResNet10().state_dict())
