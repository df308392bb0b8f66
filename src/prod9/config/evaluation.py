"""``evaluation``: what ``test`` measures of generated volumes."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from prod9.config.base import Section

FeatureSpaceKey: TypeAlias = Literal["efficientnet", "medicalnet", "classifier"]


Dose = Annotated[float, Field(gt=-1, le=10)]


class SegmentationConfig(Section):
    """What a model that has learned labels is good for (`prod9 evaluate MODEL`)."""

    channel: str | None = None
    """The channel of labels; the first when left out."""
    pairs: PositiveInt = 32
    """Real pairs of image and label map, and as many generated ones, that segmenters learn from; at
    most all of the training split."""
    seeds: PositiveInt = 2
    """Segmenters that are trained on each set, from other first weights."""
    steps: PositiveInt = 300
    """Training steps of each."""
    batch_size: PositiveInt = 2
    """Crops per step."""
    learning_rate: PositiveFloat = 2e-3
    """Of AdamW; falls to 0 as a cosine."""
    widths: tuple[PositiveInt, ...] = Field(default=(16, 32, 64), min_length=2)
    """Channels of the U-Net's levels; each level halves the grid."""
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = (48, 48, 48)
    """Voxels of a crop, and of a window when it is tested."""
    masks: PositiveInt = 12
    """Held-out label maps that images are drawn from; at most all of the test split."""
    doses: tuple[Dose, ...] = (-0.3, 0.3)
    """Changes of a label's volume that are asked for, beside none: 0.3 is 30 % more."""


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
    segmenters: bool = False
    """Train segmenters on generated pairs too, if the model has learned labels (needs
    `prod9[segmentation]`). `prod9 evaluate MODEL` does so in any case."""
    segmentation: SegmentationConfig = SegmentationConfig()
