"""The decoding loop of diffusers' aMUSEd, around any masked transformer."""

from collections.abc import Callable

import torch
from torch import Tensor

STEPS = 12
"""The pipeline's default, and prod9's."""


@torch.no_grad()
def amused_loop(
    logits_of: Callable[[Tensor], Tensor],
    initial: Tensor,
    *,
    mask_id: int,
    steps: int = STEPS,
    guidance_scale: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fill a flat grid (B, N) as ``AmusedPipeline`` does between its text encoder and its VQ model.

    The schedule (cosine), the temperatures and the draws are ``AmusedScheduler``'s with its
    defaults; every step runs both passes in one batch, at the same guidance scale.

    Args:
        logits_of: tokens (2B, N), first those to be told nothing, then those to be told their
            class -> logits (2B, N, V). Without guidance (scale 1 or less): (B, N), all told.
        initial: the mask id where unknown.
        mask_id: the codebook size V.
        steps: passes.
        guidance_scale: l_u + s (l_c - l_u).
        generator: source of all randomness.

    """
    from diffusers import AmusedScheduler

    scheduler = AmusedScheduler(mask_token_id=mask_id)
    scheduler.set_timesteps(steps, device=initial.device)
    guided = guidance_scale > 1
    tokens = initial
    for timestep in scheduler.timesteps:
        logits = logits_of(torch.cat([tokens, tokens]) if guided else tokens)
        if guided:
            untold, told = logits.chunk(2)
            logits = untold + guidance_scale * (told - untold)
        tokens = scheduler.step(logits, timestep, tokens, generator=generator).prev_sample
    return tokens
