"""What an evaluation finds: the shape of ``metrics.json``.

Every figure is that of a named set of volumes, with its number; every distance names the feature
space it was taken in. ``null`` stands for what could not be measured; ``warnings`` say why.
"""

from typing import Any, Literal

from pydantic import Field

from prod9.results.distances import FeatureSpaceFigures
from prod9.results.record import Interval, Record


class SetRecord(Record):
    """One of the sets that were compared."""

    name: str = Field(description="Folder, or data set and split.")
    volumes: int = Field(description="How many.")
    classes: dict[str, int] = Field(description="Volumes of each class; one class without labels.")
    shape: tuple[int, int, int] = Field(description="Voxels per side, axes RAS+.")
    spacing_mm: tuple[float, float, float] | None = Field(description="Voxel size, if known.")
    intensity: str = Field(description="How stored intensities became [0, 1].")
    lowest: float = Field(description="Lowest intensity, after scaling.")
    highest: float = Field(description="Highest intensity, after scaling.")
    sha256: str | None = Field(
        description="Over names, classes and voxels; null for volumes made on the spot."
    )


class ReconstructionFigures(Record):
    """Means over volumes, each volume measured by itself, intensities in [0, 1]."""

    volumes: int = Field(description="How many.")
    psnr: float = Field(description="Peak signal-to-noise ratio, dB.")
    ssim: float | None = Field(
        description="Structural similarity, Gaussian window of 11; null where a side is shorter."
    )
    ms_ssim: float | None = Field(
        description="Multi-scale SSIM, window of 5, as many scales as fit; null over a mask."
    )
    mae: float = Field(description="Mean absolute error.")
    lpips: float | None = Field(
        description="Distance of MedicalNet features; null without its weights, or over a mask."
    )
    intervals: dict[str, Interval] = Field(
        description="95 % bootstrap intervals of the means, by the names above."
    )


class Reconstruction(ReconstructionFigures):
    """Reconstructed volumes beside their originals."""

    foreground: ReconstructionFigures | None = Field(
        description="The same over the voxels that are not 0; null if none are 0."
    )
    per_class: dict[str, ReconstructionFigures] = Field(description="The same, class by class.")
    lpips_network: str | None = Field(description="Network behind `lpips`, and its weights.")
    codebook_usage: float | None = Field(
        description="Share of codes that occur; null where the tokens are not known."
    )
    codebook_perplexity: float | None = Field(
        description="exp(entropy) of the codes; null where the tokens are not known."
    )


class ClassFigures(Record):
    """One class."""

    volumes: int = Field(description="Generated.")
    real_volumes: int = Field(description="Real.")
    class_accuracy: float | None = Field(description="Share recognised as this class.")
    msssim: float | None = Field(description="Mean MS-SSIM of pairs of generated volumes.")
    msssim_real: float | None = Field(description="The same of real volumes.")


class TrainedClassifier(Record):
    """One classifier, trained on one set and tested on real volumes."""

    trained_on: str = Field(description="Which volumes.")
    volumes: int = Field(description="How many.")
    accuracy: float = Field(description="On real held-out volumes.")
    accuracy_interval: Interval = Field(description="95 % bootstrap interval over those volumes.")
    balanced_accuracy: float = Field(description="Mean over classes of the accuracy.")


class Usefulness(Record):
    """The same classifier, trained on real, generated and both, for the same number of steps."""

    steps: int = Field(
        description="Training steps of each classifier, each of 64 volumes, or of the whole set "
        "where that is smaller."
    )
    test_volumes: int = Field(description="Real held-out volumes.")
    rows: list[TrainedClassifier] = Field(description="One a training set.")


class Closeness(Record):
    """How near generated volumes come to training volumes, in one space."""

    space: str = Field(description="Voxels, or a feature space.")
    distance_ratio: float = Field(
        description="Median distance of generated volumes to the nearest training volume over the "
        "same of held-out real volumes (DCR ratio); about 1 or above without copying."
    )
    p05: float = Field(description="5th percentile of the generated volumes' distances.")
    p05_held_out: float = Field(description="The same of held-out volumes.")
    share_below_p05: float = Field(
        description="Share of generated volumes nearer to a training volume than 95 % of held-out "
        "volumes are; about 0.05 without copying."
    )
    nearer_train_share: float = Field(
        description="Share of generated volumes nearer to the training than to an equally large "
        "held-out set (ties count half); about 0.5 without copying."
    )
    nearer_train_interval: Interval = Field(
        description="95 % interval of that share (Wilson, with as many independent votes as there "
        "are)."
    )
    membership_auc: float = Field(
        description="How well the distance to the nearest generated volume tells training from "
        "held-out volumes (area under the curve); about 0.5 without copying."
    )
    membership_interval: Interval = Field(description="95 % bootstrap interval.")
    near_duplicates: int = Field(
        description="Generated volumes nearer to a training volume than half the nearest held-out "
        "one."
    )


class ClosePair(Record):
    """A generated volume and the training volume nearest to it."""

    generated: str = Field(description="Its name.")
    train: str = Field(description="Its nearest training volume.")
    distance: float = Field(description="In the first space of `spaces`.")


class Privacy(Record):
    """Whether training volumes come back."""

    verdict: Literal["no sign of copying", "suspicious", "copies"] = Field(
        description="`copies`: in some space both shares say so beyond chance, or there are near "
        "duplicates; `suspicious`: share and AUC do, or a near duplicate in a feature space."
    )
    reasons: list[str] = Field(description="What the verdict rests on.")
    spaces: list[Closeness] = Field(description="Voxels first.")
    closest: list[ClosePair] = Field(description="The closest pairs, nearest first.")


class Generation(Record):
    """Generated volumes beside real ones."""

    volumes: int = Field(description="How many.")
    class_accuracy: float | None = Field(
        description="Share that a classifier trained on real volumes recognises as their class."
    )
    classifier_real_accuracy: float | None = Field(
        description="The classifier's own accuracy on held-out real volumes."
    )
    msssim: float | None = Field(
        description="Mean MS-SSIM of pairs within a class: high means little variety."
    )
    msssim_interval: Interval | None = Field(description="95 %: bootstrap over the volumes.")
    msssim_real: float | None = Field(description="The same of the real volumes.")
    nearest_train_p05: float | None = Field(
        description="5th percentile of the distance (RMSE) to the nearest training volume."
    )
    nearest_train_p05_real: float | None = Field(
        description="The same of real held-out volumes: a generator that copies stays below it."
    )
    per_class: dict[str, ClassFigures] = Field(description="Class by class.")
    spaces: list[FeatureSpaceFigures] = Field(description="One a feature space.")
    usefulness: Usefulness | None = Field(description="Null without classes or training volumes.")
    privacy: Privacy | None = Field(description="Null without training volumes.")


class Evaluation(Record):
    """``metrics.json``."""

    schema_version: Literal[1] = Field(default=1, description="Of this layout.")
    sets: dict[str, SetRecord] = Field(
        description="`real`, `generated`, `train`, `reconstructed`, `originals`: those there were."
    )
    reconstruction: Reconstruction | None = Field(default=None, description="If measured.")
    generation: Generation | None = Field(default=None, description="If measured.")
    masked_prediction: dict[str, float] | None = Field(
        default=None, description="The transformer on masked tokens (`test` of Stage 2)."
    )
    translation: dict[str, Any] | None = Field(
        default=None, description="One modality drawn from others (`test` of Stage 2 on scans)."
    )
    window_agreement: dict[str, float] | None = Field(
        default=None, description="Windows against one pass (the demonstration on scans)."
    )
    warnings: list[str] = Field(description="What a reader must know before quoting a figure.")
    seconds: dict[str, float] = Field(description="Of each part.")
    provenance: dict[str, Any] = Field(description="Versions, machine, seed, digests, command.")
