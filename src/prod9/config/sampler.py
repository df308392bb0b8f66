"""``sampler`` and ``sliding_window``: how tokens are drawn and large volumes are cut."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from prod9.config.base import BelowOne, Section, Share
from prod9.registry import ORDERS, SCHEDULES

OwnScale = Annotated[float | None, Field(ge=0, exclude_if=lambda scale: scale is None)]


class SamplerConfig(Section):
    """Iterative decoding."""

    steps: PositiveInt = 12
    """Passes of the transformer per volume."""
    scheduler_type: Annotated[str, SCHEDULES] = "cosine"
    """gamma: the share of tokens still masked after each step."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of the draws."""
    final_temperature: PositiveFloat | None = None
    """Of the last pass; the temperature goes there linearly. The first passes decide what is drawn,
    the last ones details: cold at the end is sharp and still varied. Constant when left out."""
    revisions: NonNegativeInt = 0
    """Passes after all tokens are known: each masks some at random and draws them again, now that
    it sees all others. Tokens of one step were drawn without seeing each other."""
    revised_share: Share = 0.3
    """Share of the tokens that a revision draws again."""
    choice_temperature: NonNegativeFloat = 4.5
    """Gumbel noise on the confidences, annealed to 0 (confidence order)."""
    guidance_scale: float = Field(default=1.5, ge=1)
    """l_u + s (l_c - l_u): 1 is no guidance."""
    guidance_class: OwnScale = None
    """s of the class alone; `guidance_scale` when left out."""
    guidance_labels: OwnScale = None
    """s of the label map that an image is drawn from; `guidance_scale` when left out."""
    guidance_covariates: OwnScale = None
    """s of the covariates; `guidance_scale` when left out."""
    guidance_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How s grows from 1 (linear, cosine) or stays, over the steps."""
    guidance_every: PositiveInt = 3
    """The pass that is told nothing runs at every n-th step; the others reuse its difference."""
    order: Annotated[str, ORDERS] = "confidence"
    """Which tokens are revealed first."""


class CompletionConfig(SamplerConfig):
    """Iterative decoding where much is known: ``translate`` and ``inpaint``."""

    temperature: PositiveFloat = 0.7
    """Softmax temperature of the draws."""
    guidance_scale: float = Field(default=1.0, ge=1)
    """l_u + s (l_c - l_u): 1 is no guidance."""


class SlidingWindowConfig(Section):
    """Windows for volumes larger than `roi_size`."""

    roi_size: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 64, 64)
    """Voxels per window, and per training crop of a scan."""
    overlap: BelowOne = 0.5
    """Share of a window shared with the next."""
    sw_batch_size: PositiveInt = 1
    """Windows per pass."""
    mode: Literal["gaussian", "constant"] = "gaussian"
    """Weight of a window's voxels where windows overlap."""
