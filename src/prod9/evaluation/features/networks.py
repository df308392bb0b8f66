"""The pretrained networks whose features are compared."""

from collections.abc import Sequence
from pathlib import Path

import torch

from prod9.config.evaluation import FeatureSpaceKey
from prod9.errors import Prod9Error
from prod9.evaluation.features.efficientnet import efficientnet_space
from prod9.evaluation.features.spaces import CPU, FeatureSpace, in_full_precision, medicalnet_space
from prod9.evaluation.reconstruction import FeatureDistance
from prod9.losses.medicalnet import load_weights
from prod9.losses.perceptual import MedicalNetPerceptualLoss
from prod9.losses.weights import cache_dir, find_medicalnet
from prod9.shapes import Volume

NO_MEDICALNET = (
    "MedicalNet's weights are not there: no LPIPS and no distances in its feature space "
    "(`prod9 weights fetch medicalnet`, or --medicalnet FILE)."
)


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
            spaces.append(efficientnet_space(device=device))
        if key == "medicalnet":
            path = find_medicalnet(medicalnet, cache_dir())
            if path is None:
                raise Prod9Error(NO_MEDICALNET)
            spaces.append(medicalnet_space(path, device))
    return spaces


def lpips_of(path: Path, device: torch.device = CPU) -> FeatureDistance:
    """Return the distance of two volumes in MedicalNet's features; volumes and result on the CPU.

    Raises:
        Prod9Error: the weights are damaged.
    """
    # In training mode it would normalise over the volumes of all processes.
    network = MedicalNetPerceptualLoss(load_weights(path)).to(device).eval()

    def distance(prediction: Volume, target: Volume) -> torch.Tensor:
        with in_full_precision(device):
            return network(prediction.to(device), target.to(device)).cpu()

    return distance
