"""``loss``: the terms of Stage 1."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from prod9.config.base import BelowOne, PositiveShare, Section, Share
from prod9.registry import LOSSES, SCHEDULES, Loss


class LossSection(Section):
    """The section of a loss; that of a registered loss adds keys of its own."""

    weight: NonNegativeFloat = 1.0
    """Weight of the term."""


class PerceptualLossConfig(LossSection):
    """MedicalNet features (`loss_type: lpips`)."""

    weight: NonNegativeFloat = 0.1
    """Weight of the perceptual term."""
    network_type: Literal["medicalnet_resnet10_23datasets"] = "medicalnet_resnet10_23datasets"
    """Which network's features are compared."""
    weights_path: Path | None = None
    """MedicalNet weights on disk; the cache is looked at when left out."""
    download: bool = True
    """Fetch weights that are found nowhere."""


class FocalFrequencyLossConfig(LossSection):
    """Focal frequency loss (Jiang et al. 2021; `loss_type: ffl`)."""

    alpha: NonNegativeFloat = 1.0
    """Focusing exponent of the spectrum weights."""
    patch_factor: PositiveInt = 1
    """Patches per side of a slice."""
    axes: tuple[int, ...] = Field(default=(2, 3, 4), min_length=1)
    """Axes of (N, C, D, H, W) along which to slice."""
    ratio: PositiveShare = 0.5
    """Share of the slices used per step."""
    ave_spectrum: bool = False
    """Average the spectra over the batch (of all processes) first; in validation each volume is a
    batch by itself."""
    log_matrix: bool = False
    """Take log(1 + w) of the spectrum weights."""
    batch_matrix: bool = False
    """Normalise weights over the batch (of all processes); in validation each volume is a batch by
    itself."""

    @field_validator("axes")
    @classmethod
    def _spatial(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if not set(axes) <= {2, 3, 4} or len(set(axes)) != len(axes):
            raise ValueError(f"must be distinct and among 2, 3, 4, not {list(axes)}")
        return axes


# One line a loss. The builders are imported when a loss is built.
LOSSES.register(
    "lpips",
    Loss(
        PerceptualLossConfig,
        "prod9.training.stage1:build_perceptual",
        key="perceptual",
        untrained="prod9.losses.perceptual:untrained",
    ),
)
LOSSES.register(
    "ffl",
    Loss(FocalFrequencyLossConfig, "prod9.losses.focal_frequency:build", key="focal_frequency"),
)


class AdversarialLossConfig(Section):
    """Multi-scale patch discriminator against the reconstruction."""

    weight: NonNegativeFloat = 0.1
    """Weight of the term; 0 trains no discriminator."""
    criterion: Literal["hinge", "least_squares"] = "hinge"
    """Form of the adversarial losses."""


class AdaptiveWeightConfig(Section):
    """Adaptive adversarial weight (Esser et al. 2021)."""

    enabled: bool = True
    """Balance the two gradients at the last layer."""
    max_weight: PositiveFloat = 1e4
    """Upper clamp of the weight."""


class Stage1LossConfig(Section):
    """Generator: L1 + w_p * (perceptual or focal frequency) + w_a * adaptive * adversarial."""

    loss_type: Annotated[str, LOSSES] = "lpips"
    """`lpips`: MedicalNet features; `ffl`: focal frequency loss."""
    reconstruction: LossSection = LossSection()
    perceptual: PerceptualLossConfig = PerceptualLossConfig()
    focal_frequency: FocalFrequencyLossConfig = FocalFrequencyLossConfig()
    adversarial: AdversarialLossConfig = AdversarialLossConfig()
    adaptive: AdaptiveWeightConfig = AdaptiveWeightConfig()
    discriminator_iter_start: NonNegativeInt = 2000
    """Training batches before the discriminator joins."""

    def feature_section(self) -> LossSection:
        """Return the section of ``loss_type``."""
        return getattr(self, LOSSES.get(self.loss_type).key or self.loss_type)


class Stage2LossConfig(Section):
    """Cross-entropy over masked tokens (Chang et al. 2022)."""

    label_smoothing: BelowOne = 0.1
    """Label smoothing."""
    mask_schedule: Annotated[str, SCHEDULES] = "cosine"
    """gamma(r): the share of tokens masked, for r ~ U(0, 1)."""
    condition_dropout: BelowOne = 0.1
    """Share of samples trained without their class."""
    covariate_dropout: BelowOne = 0.2
    """Chance that a covariate, each by itself, is withheld from a training sample; from these the
    transformer learns to generate without it."""
    source_dropout: BelowOne = 0.3
    """BraTS: chance that a source modality is withheld from a training sample."""
    source_free_share: Share = 0.2
    """BraTS: share of samples that are given no source modality at all; from these the transformer
    learns to generate without sources."""
