"""Focal frequency loss of volumes, forward and backward, beside the package of its authors.

The package takes 2D images. Its users loop over slices, which is the goal's rival; all slices as
one batch is what a careful user would find, and stands beside it.
"""

import torch
from torch import Tensor

from benchmarks.contender import Case, Contender, Goal, Work

SIDE, BATCH, CALLS = 64, 2, 4
SLICES = "focal-frequency-loss, slice by slice"
ONE_BATCH = "focal-frequency-loss, slices as one batch"


def _volumes(side: int, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    shape = (batch, 1, side, side, side)
    return torch.rand(shape).requires_grad_(), torch.rand(shape)


def prod9_setup(side: int, batch: int, calls: int, seed: int) -> Work:
    from prod9.losses.focal_frequency import FocalFrequencyLoss
    from prod9.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    x, y = _volumes(side, batch, seed)
    # The package's defaults; every axial slice.
    loss_of = FocalFrequencyLoss(axes=(2,), ratio=1.0)

    def run() -> tuple[Tensor, Tensor | None]:
        for _ in range(calls):
            x.grad = None
            loss = loss_of(x, y)
            loss.backward()
        return loss, x.grad

    return Work(run, parameters=0)


def rival_setup(side: int, batch: int, calls: int, seed: int, one_batch: bool = False) -> Work:
    from focal_frequency_loss import FocalFrequencyLoss

    x, y = _volumes(side, batch, seed)
    loss_of = FocalFrequencyLoss()

    def slice_by_slice() -> Tensor:
        return torch.stack([loss_of(x[:, :, i], y[:, :, i]) for i in range(side)]).mean()

    def as_one_batch() -> Tensor:
        a, b = (volume.transpose(1, 2).flatten(0, 1) for volume in (x, y))  # (B D, 1, H, W)
        return loss_of(a, b)

    forward = as_one_batch if one_batch else slice_by_slice

    def run() -> tuple[Tensor, Tensor | None]:
        for _ in range(calls):
            x.grad = None
            loss = forward()
            loss.backward()
        return loss, x.grad

    return Work(run, parameters=0)


def cases() -> list[Case]:
    arguments = {"side": SIDE, "batch": BATCH, "calls": CALLS, "seed": 0}
    return [
        Case(
            name=f"focal_frequency_{SIDE}",
            title=(
                f"Loss and gradient of {BATCH} volumes of {SIDE}³ over all axial slices, "
                f"{CALLS} times a repeat."
            ),
            contenders=(
                Contender("prod9", prod9_setup, arguments),
                Contender(SLICES, rival_setup, arguments),
                Contender(ONE_BATCH, rival_setup, {**arguments, "one_batch": True}),
            ),
            goals=(Goal(SLICES, ratio=3.0),),
            repeats=15,
            warmup=3,
            per_repeat={"volumes": BATCH * CALLS},
            sizes={"axes": [2], **arguments},
        )
    ]
