"""The feature spaces that need no training, and MedicalNet's weights for one of them."""

from collections.abc import Sequence
from pathlib import Path

from prod9.config.evaluation import FeatureSpaceKey
from prod9.errors import UserError
from prod9.evaluate.efficientnet import efficientnet_space
from prod9.evaluate.feature_spaces import FeatureSpace, medicalnet_space
from prod9.losses.weights import cache_dir, find_medicalnet

NO_MEDICALNET = (
    "MedicalNet's weights are not there: no LPIPS and no distances in its feature space "
    "(`prod9 weights fetch medicalnet`, or --medicalnet FILE)."
)


def feature_spaces(
    keys: Sequence[FeatureSpaceKey], medicalnet: Path | None = None
) -> list[FeatureSpace]:
    """Return the feature spaces that need no training, in the order of ``keys``.

    Raises:
        UserError: MedicalNet's weights are not there, or damaged.

    """
    spaces: list[FeatureSpace] = []
    for key in keys:
        if key == "efficientnet":
            spaces.append(efficientnet_space())
        if key == "medicalnet":
            path = find_medicalnet(medicalnet, cache_dir())
            if path is None:
                raise UserError(NO_MEDICALNET)
            spaces.append(medicalnet_space(path))
    return spaces
