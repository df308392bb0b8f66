"""A raw latent to codes and tokens: prod9's FSQ beside vector-quantize-pytorch's.

The rival stands here twice: as its users run it, and in a process that keeps freed memory as
prod9's commands do, which tells the arithmetic's share of the gain from the allocator's.
"""

import torch
from torch import Tensor

from benchmarks.contender import Case, Contender, Goal, Work

LEVELS = [8, 8, 8]
RIVAL = "vector-quantize-pytorch"
KEEPING = f"{RIVAL}, freed memory kept"


def _latent(side: int, batch: int, seed: int) -> Tensor:
    """Shape (batch, 3, side, side, side); wide enough that every level is met."""
    torch.manual_seed(seed)
    return 2.5 * torch.randn(batch, len(LEVELS), side, side, side)


def prod9_setup(side: int, batch: int, calls: int, seed: int) -> Work:
    from prod9.fsq import FSQ
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    quantiser, z = FSQ(LEVELS), _latent(side, batch, seed)

    def run() -> tuple[Tensor, Tensor]:
        for _ in range(calls):
            codes = quantiser.quantize(z)
            tokens = quantiser.codes_to_indices(codes)
        return codes, tokens

    return Work(run, parameters=0)


def rival_setup(side: int, batch: int, calls: int, seed: int, keep: bool = False) -> Work:
    from vector_quantize_pytorch import FSQ

    if keep:
        from prod9.runtime.allocator import keep_freed_memory

        keep_freed_memory()
    # preserve_symmetry=False, its default, is the paper's bound, which is prod9's too. Latents as
    # convolutions leave them need channel_first. Its forward gives codes and indices at once.
    quantiser = FSQ(LEVELS, preserve_symmetry=False, channel_first=True)
    z = _latent(side, batch, seed)

    def run() -> tuple[Tensor, Tensor]:
        for _ in range(calls):
            codes, tokens = quantiser(z)
        return codes, tokens

    return Work(run, parameters=0)


def _case(side: int, batch: int, calls: int, goals: tuple[Goal, ...]) -> Case:
    arguments = {"side": side, "batch": batch, "calls": calls, "seed": 0}
    return Case(
        name=f"fsq_{side}",
        title=(
            f"Quantise {batch} latent{'s' * (batch > 1)} of {side}³ cells to codes and tokens of "
            f"{'x'.join(map(str, LEVELS))} levels, {calls} times a repeat."
        ),
        contenders=(
            Contender("prod9", prod9_setup, arguments),
            Contender(RIVAL, rival_setup, arguments),
            Contender(KEEPING, rival_setup, {**arguments, "keep": True}),
        ),
        goals=goals,
        repeats=15,
        warmup=3,
        per_repeat={"latents": batch * calls},
        sizes={"levels": LEVELS, **arguments},
    )


def cases() -> list[Case]:
    # One call takes milliseconds; a repeat of several is what a clock and a scheduler can measure.
    return [
        _case(64, 1, calls=20, goals=(Goal(RIVAL, ratio=2.0),)),
        _case(16, 8, calls=100, goals=()),
    ]
