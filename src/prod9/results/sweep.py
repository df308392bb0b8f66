"""Which sampler settings draw best: the table of a sweep, and its winner."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from prod9.config.sampler import SamplerConfig
from prod9.results.schema import Record, SetDistance

RECOGNISED_WITHIN = 0.02
"""A winner's volumes are recognised at most this share less often than the best setting's."""
ALIKE_WITHIN = 0.08
"""MS-SSIM within classes of a winner's volumes is at most this much above the real volumes'."""


class SweepRow(Record):
    """One setting."""

    sampler: SamplerConfig = Field(description="The setting.")
    distance: SetDistance = Field(description="From the real split, in the sweep's space.")
    class_accuracy: float | None = Field(description="Share recognised as their class.")
    msssim: float | None = Field(description="Mean MS-SSIM of pairs within a class.")
    seconds_per_volume: float = Field(description="Time to draw one volume.")


class Sweep(Record):
    """``sweep.json``."""

    schema_version: Literal[1] = Field(default=1, description="Of this layout.")
    real: str = Field(description="The real volumes.")
    space: str = Field(description="Feature space of all distances.")
    floor: SetDistance | None = Field(description="Other real volumes, as many, in this space.")
    msssim_real: float | None = Field(description="Mean MS-SSIM of pairs of real volumes.")
    samples_per_class: int = Field(description="Volumes drawn of each class, at each setting.")
    seed: int = Field(description="Of all draws: the same for every setting.")
    tokenizer: str = Field(description="Digest.")
    transformer: str = Field(description="Digest.")
    rows: list[SweepRow] = Field(description="In the order of the sweep.")
    provenance: dict[str, object] = Field(description="Versions, machine, command.")

    def answers_as(self, other: "Sweep") -> bool:
        """Whether rows of the other sweep can stand in this one."""
        keys = {"real", "space", "samples_per_class", "seed", "tokenizer", "transformer"}
        return self.model_dump(include=keys) == other.model_dump(include=keys)


def winner(rows: Sequence[SweepRow], msssim_real: float | None = None) -> SweepRow:
    """Return the setting with the smallest Frechet distance among those that are fit to win.

    All settings draw as many volumes, so that the bias of few volumes is about the same for all.
    What a distance over all classes does not see is guarded: volumes of the wrong class
    (:data:`RECOGNISED_WITHIN`), and volumes that are all alike (:data:`ALIKE_WITHIN`), which low
    temperatures draw and few volumes in many dimensions hide. Where nothing is fit, all may win.
    """
    recognised = [row.class_accuracy for row in rows if row.class_accuracy is not None]
    enough = max(recognised, default=0.0) - RECOGNISED_WITHIN

    def fit(row: SweepRow) -> bool:
        right = row.class_accuracy is None or row.class_accuracy >= enough
        if row.msssim is None or msssim_real is None:
            return right
        return right and row.msssim <= msssim_real + ALIKE_WITHIN

    return min([row for row in rows if fit(row)] or rows, key=lambda row: row.distance.frechet)
