"""What an evaluation finds: the shape of ``metrics.json``.

Every figure is that of a named set of volumes, with its number; every distance names the feature
space it was taken in. ``null`` stands for what could not be measured; ``warnings`` say why.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from prod9.config.evaluation import FeatureSpaceKey

MOST = 24
"""Volumes of a class that MS-SSIM compares with one another, evenly spread over the class."""
Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval: bootstrap, unless a field says otherwise."""
TestedSet = Literal["generated", "reconstructed", "real"]
Verdict = Literal["no sign of copying", "suspicious", "copies"]


class Record(BaseModel):
    """Frozen; unknown fields are errors, so that a file of another version is not half read."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


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
    sha256: str | None = Field(description="Over names, classes, voxels; null if made on the spot.")


class ReconstructionFigures(Record):
    """Means over volumes, each volume measured by itself, intensities in [0, 1]."""

    volumes: int = Field(description="How many.")
    psnr: float = Field(description="Peak signal-to-noise ratio, dB.")
    ssim: float | None = Field(description="SSIM, window of 11; null where a side is shorter.")
    ms_ssim: float | None = Field(description="Multi-scale SSIM, window of 5; null over a mask.")
    mae: float = Field(description="Mean absolute error.")
    lpips: float | None = Field(description="In MedicalNet's features; null without its weights.")
    dice: float | None = Field(
        default=None, description="Dice of binary shapes; null where volumes are none."
    )
    intervals: dict[str, Interval] = Field(description="95 % bootstrap intervals of these means.")


class Reconstruction(ReconstructionFigures):
    """Reconstructed volumes beside their originals."""

    foreground: ReconstructionFigures | None = Field(
        description="The same over the voxels that are not 0; null if none are 0."
    )
    per_class: dict[str, ReconstructionFigures] = Field(description="The same, class by class.")
    lpips_network: str | None = Field(description="Network behind `lpips`, and its weights.")
    codebook_usage: float | None = Field(description="Share of codes that occur, if known.")
    codebook_perplexity: float | None = Field(description="exp(entropy) of the codes, if known.")
    bits_per_voxel: float | None = Field(
        default=None, description="Bits of a volume's tokens over its voxels, if known."
    )


class Neighbours(Record):
    """How much of a set and of the reference set lies where the other is dense."""

    volumes: int = Field(description="Of the set.")
    reference_volumes: int = Field(description="Of the reference.")
    precision: float | None = Field(description="Improved precision, k = 3.")
    recall: float | None = Field(description="Improved recall, k = 3.")
    density: float | None = Field(description="Density, k = 5.")
    coverage: float | None = Field(description="Coverage, k = 5.")


class SetDistance(Neighbours):
    """Distances of a set from the reference set, in one feature space."""

    frechet: float = Field(description="Frechet distance (FID where the space is Inception).")
    frechet_interval: Interval | None = Field(
        description="95 % interval over resampled halves; null below 8 volumes."
    )
    kernel: float = Field(description="Kernel distance (KID): unbiased squared MMD, degree 3.")
    kernel_interval: Interval | None = Field(description="95 % interval, as above.")


class CurvePoint(Record):
    """Frechet distance of subsets of N against N reference volumes."""

    volumes: int = Field(description="N, of both sets.")
    generated: float = Field(description="Mean over random subsets.")
    generated_sd: float = Field(description="Standard deviation over random subsets.")
    floor: float | None = Field(description="Mean of other real volumes against the reference.")


class FeatureSpaceFigures(Record):
    """Generated volumes beside real ones in one feature space."""

    space: str = Field(description="Network, what it was trained on, what goes in.")
    key: FeatureSpaceKey = Field(description="Short name.")
    dimensions: int = Field(description="Of a feature vector.")
    weights_sha256: str = Field(description="Of the network's weights.")
    generated: SetDistance = Field(description="Generated against real.")
    floor: SetDistance | None = Field(
        description="Other real volumes, as many as generated ones if there are, against real ones."
    )
    floor_of: str | None = Field(description="Which other real volumes those are.")
    frechet_ratio: float | None = Field(
        default=None,
        description="Generated over floor, both of as many volumes, against the same ones.",
    )
    at_floor: Neighbours | None = Field(
        default=None, description="As many generated volumes as the floor's, against its reference."
    )
    reconstructed: SetDistance | None = Field(
        default=None, description="As many reconstructions: what the tokenizer alone loses (rFID)."
    )
    curve: list[CurvePoint] = Field(description="The Frechet distance over the number of volumes.")
    frechet_limit: float | None = Field(
        description="Where the curve goes for many volumes (line in 1/N; Chong & Forsyth 2020)."
    )
    stable_from: int | None = Field(
        description="Volumes from which the distance is within 5 % of that limit, if known."
    )
    stable: bool = Field(description="Whether there are as many.")
    per_class: dict[str, SetDistance] = Field(description="Class by class, where there are enough.")


def too_few(space: FeatureSpaceFigures) -> str | None:
    """Say what is wrong with the Frechet distance at this number of volumes; None: nothing."""
    if space.stable:
        return None
    if space.frechet_limit is None:
        return (
            "too few even for a curve over their number. Compare it with the floor beside it only."
        )
    if space.stable_from is None:
        return (
            "it falls as 1/N, and its limit may be 0; at this number the sets cannot be told apart "
            "by it. Compare it with the floor beside it only."
        )
    n, d = space.generated.volumes, space.dimensions
    more = "" if n >= d else f", and {n:,} is less than the {d:,} dimensions of a feature"
    return (
        f"still falling; within 5 % of its limit from about {space.stable_from:,} volumes "
        f"on{more}. Compare it only with figures at the same number of volumes, and rather quote "
        "the kernel distance, which has no such bias."
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
    auc: float | None = Field(
        default=None, description="Area under the ROC curve, mean of each class against the rest."
    )


class Usefulness(Record):
    """The same classifier, trained on real, generated and both, for the same number of steps."""

    steps: int = Field(description="Training steps of each classifier, of up to 64 volumes each.")
    test_volumes: int = Field(description="Real held-out volumes.")
    rows: list[TrainedClassifier] = Field(description="One a training set.")


class TwoSampleTest(Record):
    """How well a network that was trained for it tells volumes from real ones."""

    volumes_of: TestedSet = Field(
        description="Which; `real`: other real volumes, which nothing should tell apart."
    )
    volumes: int = Field(description="Of each of both sets; half of them train the network.")
    seeds: int = Field(description="Times that this was done, with other halves and first weights.")
    auc: float = Field(
        description="Area under the ROC curve on unseen volumes, mean over the seeds: 0.5 where "
        "nothing tells them apart, 1 where each gives itself away."
    )
    auc_interval: Interval = Field(description="95 % bootstrap interval, over seeds and volumes.")


class Closeness(Record):
    """How near generated volumes come to training volumes, in one space."""

    space: str = Field(description="Voxels, or a feature space.")
    distance_ratio: float = Field(
        description="Median distance to the nearest training volume over that of held-out volumes "
        "(DCR ratio); about 1 or above without copying."
    )
    p05: float = Field(description="5th percentile of the generated volumes' distances.")
    p05_held_out: float = Field(description="The same of held-out volumes.")
    share_below_p05: float = Field(
        description="Share nearer to a training volume than 95 % of held-out volumes; about 0.05."
    )
    nearer_train_share: float = Field(
        description="Share nearer to the training than to as many held-out volumes; about 0.5."
    )
    nearer_train_interval: Interval = Field(description="95 % Wilson interval of that share.")
    membership_auc: float = Field(
        description="How well the distance to the nearest generated volume tells training from "
        "held-out volumes; about 0.5 without copying."
    )
    membership_interval: Interval = Field(description="95 % bootstrap interval.")
    near_duplicates: int = Field(
        description="Volumes nearer to a training volume than half the nearest held-out one."
    )


class ClosePair(Record):
    """A generated volume and the training volume nearest to it."""

    generated: str = Field(description="Its name.")
    train: str = Field(description="Its nearest training volume.")
    distance: float = Field(description="In the first space of `spaces`.")


class Privacy(Record):
    """Whether training volumes come back."""

    verdict: Verdict = Field(
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
    classifier_real_accuracy: float | None = Field(description="The same of real held-out volumes.")
    msssim: float | None = Field(
        description="Mean MS-SSIM of pairs within a class: high means little variety."
    )
    msssim_interval: Interval | None = Field(description="95 %: bootstrap over the volumes.")
    msssim_real: float | None = Field(description="The same of the real volumes.")
    nearest_train_p05: float | None = Field(
        description="5th percentile of the distance (RMSE) to a training volume."
    )
    nearest_train_p05_real: float | None = Field(
        description="The same of real held-out volumes: a generator that copies is below it."
    )
    per_class: dict[str, ClassFigures] = Field(description="Class by class.")
    spaces: list[FeatureSpaceFigures] = Field(description="One a feature space.")
    usefulness: Usefulness | None = Field(description="Null without classes or training volumes.")
    privacy: Privacy | None = Field(description="Null without training volumes.")
    two_sample_tests: list[TwoSampleTest] = Field(
        default=[], description="One a set; none where it was not wanted or volumes are too few."
    )


class LabelScore(Record):
    """How well a segmenter finds one label in real held-out subjects, mean over segmenters."""

    label: int = Field(description="Its value in the label maps.")
    subjects: int = Field(description="Test subjects that have it.")
    dice: float = Field(description="Mean Dice over segmenters and subjects.")
    dice_interval: Interval | None = Field(
        description="95 % bootstrap interval over segmenters and subjects; null below 2 subjects."
    )
    dice_of_seeds: list[float] = Field(description="Mean over subjects, of each segmenter.")
    hd95_mm: float = Field(
        description="Mean 95th percentile of the distances between both surfaces (Hausdorff); the "
        "volume's diagonal where nothing is found."
    )
    hd95_interval: Interval | None = Field(description="95 % interval, as above.")
    missed: float = Field(description="Share of subjects in which nothing of it is found.")


class TrainedSegmenter(Record):
    """Segmenters that were trained on one set and tested on real subjects."""

    trained_on: Literal["real", "generated", "real + generated"] = Field(description="Which pairs.")
    pairs: int = Field(description="How many.")
    labels: list[LabelScore] = Field(description="One a label.")


class MaskFidelity(Record):
    """Whether images show the mask that they were drawn from, as segmenters of real data see it."""

    label: int = Field(description="Its value.")
    subjects: int = Field(description="Held-out label maps with it that images were drawn from.")
    dice: float = Field(description="Requested mask and what is found in the image drawn from it.")
    dice_interval: Interval | None = Field(
        description="95 % bootstrap interval over segmenters and subjects."
    )
    ceiling: float = Field(
        description="The same mask and what is found in the real image that it belongs to."
    )
    ceiling_interval: Interval | None = Field(description="95 % interval, as above.")
    lost: float = Field(description="Ceiling less Dice, subject by subject: 0 is as good as real.")
    lost_interval: Interval | None = Field(description="95 % interval, as above.")


class LabelVolumes(Record):
    """How large a label is in each subject, ml; 0 where it is not."""

    label: int = Field(description="Its value.")
    real: list[float] = Field(description="In each label map of the test split.")
    generated: list[float] = Field(description="In each generated label map.")
    kolmogorov_smirnov: float = Field(
        description="Greatest difference of both cumulative distributions, 0 to 1."
    )
    p_value: float = Field(description="Of that difference, if both were of one distribution.")


class DoseResponse(Record):
    """Volume of a label that was asked for, and the volume found in the image drawn from it."""

    label: int = Field(description="Its value.")
    subjects: int = Field(description="Held-out label maps in which it was changed.")
    requested: list[float] = Field(description="ml of each image.")
    found: list[float] = Field(description="ml, mean over the segmenters of real data.")
    slope: float | None = Field(
        description="Of the line through them, ml found per ml requested; null where all requests "
        "are alike."
    )
    slope_interval: Interval | None = Field(description="95 % bootstrap interval over subjects.")
    r2: float | None = Field(description="Share of the variance that the line explains.")
    r2_interval: Interval | None = Field(description="95 % interval, as above.")
    slope_of_real: float | None = Field(
        description="What the segmenters alone do: ml found for each true ml in the real images of "
        "the test split."
    )
    slope_within: float | None = Field(
        description="The same slope of changes alone: of both volumes, each subject's mean is "
        "taken away."
    )
    slope_within_interval: Interval | None = Field(description="95 % interval, as above.")


class Segmentation(Record):
    """What a model that has learned labels is good for."""

    channel: str = Field(description="The channel of labels.")
    steps: int = Field(description="Training steps of each segmenter.")
    seeds: int = Field(description="Segmenters of each set.")
    test_subjects: int = Field(description="Real held-out scans.")
    segmenters: list[TrainedSegmenter] = Field(description="One a training set.")
    fidelity: list[MaskFidelity] = Field(description="One a label.")
    volumes: list[LabelVolumes] = Field(description="One a label.")
    doses: list[DoseResponse] = Field(description="One a label.")


class Evaluation(Record):
    """``metrics.json``."""

    schema_version: Literal[1] = Field(default=1, description="Of this layout.")
    sets: dict[str, SetRecord] = Field(
        description="`real`, `generated`, `train`, `reconstructed`, `originals`: those there were."
    )
    reconstruction: Reconstruction | None = Field(default=None, description="If measured.")
    generation: Generation | None = Field(default=None, description="If measured.")
    segmentation: Segmentation | None = Field(
        default=None, description="If measured: of a model that has learned labels."
    )
    masked_prediction: dict[str, float] | None = Field(
        default=None, description="The transformer on masked tokens (`test` of Stage 2)."
    )
    translation: dict[str, Any] | None = Field(
        default=None,
        description="One channel drawn from others (`test` of Stage 2 on several channels).",
    )
    window_agreement: dict[str, float] | None = Field(
        default=None, description="Windows against one pass (the demonstration on scans)."
    )
    demo_time: dict[str, float] | None = Field(
        default=None,
        description="Of a demonstration: shares of its time before its page was written "
        "(`training`, `drawing`, `figures`, `reading`, `rest`); `conv3d_gflops`, the machine's "
        "rate (GFLOP/s) as in `prod9 doctor`; `tflop`, seconds times this rate.",
    )
    warnings: list[str] = Field(description="What a reader must know before quoting a figure.")
    seconds: dict[str, float] = Field(
        description="Of each part; `figures: ...` are parts of the figures of generated volumes."
    )
    provenance: dict[str, Any] = Field(description="Versions, machine, seed, digests, command.")
