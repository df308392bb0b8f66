"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) as a ``logits_fn``.

Convention: l = l_c + (s - 1) (l_c - l_u). s = 1 is no guidance, s = 0 the unconditional model.
"""

import math
from typing import Literal

import torch
from torch import Tensor

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
    every: int = 1,
) -> LogitsFn:
    """Return the guided model, to be called for the steps of one sampling in order.

    The unconditional pass runs at every ``every``-th guided step, in one batch with the other. The
    steps between reuse the last difference of the two, which changes little from step to step
    (Yan et al. 2025, arXiv 2503.12450, where masked generation is called MAR).
    """
    both = condition.joined(condition.null(model.mask_id))
    difference: Tensor | None = None
    guided_steps = 0

    def logits_fn(tokens: Tokens, progress: float) -> Logits:
        nonlocal difference, guided_steps
        s = guidance_at(scale, schedule, progress)
        if s == 1:
            return model(tokens, condition)
        # The head is an affine map: guiding what goes into it is guiding what comes out, at half
        # its cost.
        if difference is None or guided_steps % every == 0:
            features = model.features(torch.cat([tokens, tokens]), both).float()
            conditional, unconditional = features.chunk(2)
            difference = conditional - unconditional
        else:
            conditional = model.features(tokens, condition).float()
        guided_steps += 1
        return model.head(conditional + (s - 1) * difference)

    return logits_fn
