"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) as a ``logits_fn``.

Convention: l = l_u + s (l_c - l_u). s = 1 is no guidance, s = 0 the unconditional model.
"""

import math
from typing import Literal

import torch

from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.sampling import LogitsFn
from prod9.shapes import Logits, Tokens

GuidanceSchedule = Literal["constant", "linear", "cosine"]


def guidance_at(scale: float, schedule: GuidanceSchedule, progress: float) -> float:
    """Return s at ``progress`` in [0, 1): ``scale`` throughout, or rising to it from 1."""
    match schedule:
        case "constant":
            return scale
        case "linear":
            return 1 + (scale - 1) * progress
        case "cosine":
            return 1 + (scale - 1) * (1 - math.cos(math.pi * progress)) / 2


def guided(
    model: MaskedTransformer,
    condition: Condition,
    scale: float,
    schedule: GuidanceSchedule = "constant",
) -> LogitsFn:
    """Return the guided model; both passes run in one batch, and one alone where s = 1."""
    both = condition.joined(condition.null(model.mask_id))

    def logits_fn(tokens: Tokens, progress: float) -> Logits:
        s = guidance_at(scale, schedule, progress)
        if s == 1:
            return model(tokens, condition)
        features = model.features(torch.cat([tokens, tokens]), both).float()
        conditional, unconditional = features.chunk(2)
        # The head is an affine map, and the weights 1 - s and s sum to one: guiding what goes into
        # it is guiding what comes out, at half its cost.
        return model.head(unconditional + s * (conditional - unconditional))

    return logits_fn
