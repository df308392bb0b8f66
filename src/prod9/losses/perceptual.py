"""Perceptual loss: distance between MedicalNet features of two volumes.

The computation is that of MONAI's ``MedicalNetPerceptualSimilarity`` (LPIPS, Zhang et al. 2018,
arXiv 1801.03924, without its learned weights; features of Chen et al. 2019, arXiv 1904.00625), with
two differences: the weights come from a file of ours, and a constant volume has a finite loss.
"""

from collections.abc import Callable, Mapping

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

    The floor under the standard deviation keeps a constant volume's loss and gradient finite;
    above it nothing changes. ``over_all``: over the batch of all processes, which must all come
    here.
    """
    if not over_all or world_size() == 1:
        return (volume - volume.mean()) / volume.std().clamp_min(STD_FLOOR)
    count = total(torch.tensor(float(volume.numel()), device=volume.device))
    centred = volume - total_with_gradient(volume.sum()) / count
    variance = total_with_gradient(centred.square().sum()) / (count - 1)
    return centred / variance.sqrt().clamp_min(STD_FLOOR)


def normalize_each(volume: Volume) -> Volume:
    """(x - mean) / std of each volume by itself: whatever comes with it, and on which process."""
    std, mean = torch.std_mean(volume, (1, 2, 3, 4), keepdim=True)
    return (volume - mean) / std.clamp_min(STD_FLOOR)


def _unit_length(features: Tensor) -> Tensor:
    """Each position's feature vector (axis 1) over its length; finite where it is zero."""
    return features / (features.square().sum(1, keepdim=True) + 1e-10).sqrt()


class MedicalNetPerceptualLoss(nn.Module):
    """Mean squared distance of unit-length MedicalNet features, for volumes in [0, 1].

    The network is frozen and no registered submodule: it has no entry in any ``state_dict`` or
    export, no optimizer sees its parameters, and ``train()`` does not reach it, so it stays in eval
    mode. It still follows the module from device to device (never to another dtype). fp32
    throughout, autocast or not: the features' squares lose what little differs in bf16.

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

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> nn.Module:
        # What .to(), .cuda() and Lightning call. A probe tells where tensors are being moved.
        super()._apply(fn, recurse)
        probe = torch.empty(0, device=self.network.conv1.weight.device)
        self.network.to(device=fn(probe).device)
        return self

    def features(self, volume: Volume) -> Float[Tensor, "b features fd fh fw"]:
        """Unit-length features, C * 512 a position; each channel passes through by itself."""
        b, c = volume.shape[:2]
        x = volume.float()
        # Processes validate unequal numbers of batches, and then cannot wait for each other.
        x = normalize_intensity(x, over_all=True) if self.training else normalize_each(x)
        x = x.flatten(0, 1)[:, None]  # (B C, 1, D, H, W)
        return _unit_length(self.network(x).unflatten(0, (b, c)).flatten(1, 2))

    def forward(
        self, prediction: Volume, target: Volume, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Squared feature distance, averaged over positions and batch, fp32.

        The gradient reaches ``prediction`` alone. Nothing is random, ``generator`` is not used.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            with torch.no_grad():
                wanted = self.features(target)
            return (self.features(prediction) - wanted).square().sum(1).mean()


def untrained(config: PerceptualLossConfig) -> MedicalNetPerceptualLoss:
    """Return the loss with random weights."""
    return MedicalNetPerceptualLoss(MedicalNetResNet10().state_dict())
