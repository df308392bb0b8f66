"""What is found in one feature space: the part of ``metrics.json`` that holds distances."""

from pydantic import Field

from prod9.config.evaluation import FeatureSpaceKey
from prod9.results.record import Interval, Record


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
    kernel: float = Field(
        description="Kernel distance (KID): unbiased squared MMD, polynomial kernel of degree 3."
    )
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
        default=None,
        description="Generated volumes, as many as the floor's and against its reference, to be "
        "compared with it; the mean over random subsets where there are more.",
    )
    reconstructed: SetDistance | None = Field(
        default=None,
        description="Reconstructions of real volumes, as many, against the same real ones: what "
        "the tokenizer alone loses (rFID).",
    )
    curve: list[CurvePoint] = Field(description="The Frechet distance over the number of volumes.")
    frechet_limit: float | None = Field(
        description="Where the curve goes for many volumes (line in 1/N; Chong & Forsyth 2020)."
    )
    stable_from: int | None = Field(
        description="Volumes at which the Frechet distance is within 5 % of that limit; null: "
        "nobody knows, because the limit may be 0, or there are too few for a curve."
    )
    stable: bool = Field(description="Whether there are as many.")
    per_class: dict[str, SetDistance] = Field(description="Class by class, where there are enough.")
