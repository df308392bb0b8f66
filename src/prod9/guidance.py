"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598) as a ``logits_fn``.

Convention: l = l_c + (s - 1) (l_c - l_u). s = 1 is no guidance, s = 0 the unconditional model.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from prod9.config.sampler import SamplerConfig
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


def parts_of(
    condition: Condition, config: SamplerConfig, absent: int, labels: Sequence[int] = ()
) -> list[tuple[float, Condition]]:
    """Return the scales of a condition's parts, each with what is given before that part.

    Parts follow one another (Brooks et al. 2023, arXiv 2211.09800): target channel and images, the
    class, the labels, the covariates. Neighbours of one scale are one part; with ``guidance_scale``
    alone there is one, from nothing to everything.

    Args:
        condition: all that is given.
        config: the scales.
        absent: the mask id.
        labels: the sources that are labels.
    """
    scale, before = config.guidance_scale, condition.null(absent)
    own = {
        "class": config.guidance_class,
        "labels": config.guidance_labels,
        "covariates": config.guidance_covariates,
    }
    found = list[tuple[float, Condition]]()
    if any(each is not None for each in own.values()):
        for name, after in condition.chain(absent, labels):
            each = own.get(name)
            each = scale if each is None else each
            if not found or found[-1][0] != each:
                found.append((each, before))
            before = after
    return found or [(scale, before)]


def guided(
    model: MaskedTransformer,
    condition: Condition,
    scale: float | Sequence[tuple[float, Condition]],
    schedule: GuidanceSchedule = "constant",
    every: int = 1,
) -> LogitsFn:
    """Return the guided model, to be called for the steps of one sampling in order.

    With parts (:func:`parts_of`) in place of a scale, each has its own: the difference that a part
    makes to what is given before it is scaled, and their sum is the formula above where all scales
    are alike.

    The passes that are told less run at every ``every``-th guided step, in one batch with the
    other. The steps between reuse the last differences, which change little from step to step
    (Yan et al. 2025, arXiv 2503.12450, where masked generation is called MAR).
    """
    parts = [(scale, condition.null(model.mask_id))] if isinstance(scale, float | int) else scale
    joined = condition
    for _, before in reversed(parts):
        joined = joined.joined(before)
    differences: list[Tensor] = []
    guided_steps = 0

    def logits_fn(tokens: Tokens, progress: float) -> Logits:
        nonlocal differences, guided_steps
        scales = [guidance_at(own, schedule, progress) for own, _ in parts]
        if all(s == 1 for s in scales):
            return model(tokens, condition)
        # The head is an affine map: guiding what goes into it is guiding what comes out, at half
        # its cost.
        if not differences or guided_steps % every == 0:
            features = model.features(torch.cat([tokens] * (1 + len(parts))), joined).float()
            conditional, *less = features.chunk(1 + len(parts))  # the most told first
            differences = [
                more - fewer for more, fewer in zip([conditional, *less], less, strict=False)
            ]
        else:
            conditional = model.features(tokens, condition).float()
        guided_steps += 1
        result = conditional
        for s, difference in zip(reversed(scales), differences, strict=True):
            result = result + (s - 1) * difference
        return model.head(result)

    return logits_fn
