"""``sampler`` and ``sliding_window``: how tokens are drawn and large volumes are cut."""

from typing import Annotated, Literal

from pydantic import Field

from prod9.config.base import Section
from prod9.registry import ORDERS, SCHEDULES

Side = Annotated[int, Field(ge=1)]


class SamplerConfig(Section):
    """Iterative decoding."""

    steps: int = Field(default=12, ge=1, description="Passes of the transformer per volume.")
    scheduler_type: Annotated[str, SCHEDULES] = Field(
        default="cosine", description="gamma: the share of tokens still masked after each step."
    )
    temperature: float = Field(default=1.0, gt=0, description="Softmax temperature of the draws.")
    choice_temperature: float = Field(
        default=4.5,
        ge=0,
        description="Gumbel noise on the confidences, annealed to 0 (confidence order).",
    )
    guidance_scale: float = Field(
        default=1.5, ge=1, description="l_u + s (l_c - l_u): 1 is no guidance."
    )
    guidance_schedule: Literal["constant", "linear", "cosine"] = Field(
        default="linear",
        description="How s grows from 1 (linear, cosine) or stays, over the steps.",
    )
    order: Annotated[str, ORDERS] = Field(
        default="confidence", description="Which tokens are revealed first."
    )


class CompletionConfig(SamplerConfig):
    """Iterative decoding where much is known: ``translate`` and ``inpaint``."""

    temperature: float = Field(default=0.7, gt=0, description="Softmax temperature of the draws.")
    guidance_scale: float = Field(
        default=1.0, ge=1, description="l_u + s (l_c - l_u): 1 is no guidance."
    )


class SlidingWindowConfig(Section):
    """Windows for volumes larger than `roi_size`."""

    roi_size: tuple[Side, Side, Side] = Field(
        default=(64, 64, 64), description="Voxels per window, and per training crop of a scan."
    )
    overlap: float = Field(
        default=0.5, ge=0, lt=1, description="Share of a window shared with the next."
    )
    sw_batch_size: int = Field(default=1, ge=1, description="Windows per pass.")
    mode: Literal["gaussian", "constant"] = Field(
        default="gaussian", description="Weight of a window's voxels where windows overlap."
    )
