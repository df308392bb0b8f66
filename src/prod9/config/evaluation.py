"""``evaluation``: what ``test`` measures of generated volumes."""

from typing import Literal, TypeAlias

from pydantic import NonNegativeInt

from prod9.config.base import Section

FeatureSpaceKey: TypeAlias = Literal["efficientnet", "medicalnet", "classifier"]


class EvaluationConfig(Section):
    """Generated volumes beside the real test split (Stage 2's `test`)."""

    samples_per_class: NonNegativeInt = 16
    """Volumes drawn of each class (modality); 0: none."""
    feature_spaces: tuple[FeatureSpaceKey, ...] = ("efficientnet", "medicalnet", "classifier")
    """Where distances are taken; MedicalNet only if its weights are there."""
    usefulness: bool = True
    """Train classifiers on generated volumes too."""
    two_sample_test: bool = True
    """Train networks to tell generated from real volumes."""
