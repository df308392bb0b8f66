"""What two processes compute together, each with its share of a batch; run once by spawning."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from prod9.data.crops import Batch
from prod9.errors import Prod9Error
from prod9.losses.adversarial import adaptive_weight
from prod9.losses.focal_frequency import FocalFrequencyLoss
from prod9.losses.perceptual import normalize_intensity
from prod9.masking import mask_tokens
from prod9.runtime import distributed
from prod9.runtime.distributed import Means
from prod9.training.nonfinite import NonfiniteGuard
from prod9.training.stage2_module import _over_processes

BATCH = 4


def volumes() -> Tensor:
    return torch.rand(BATCH, 1, 3, 4, 5, generator=torch.Generator().manual_seed(1))


def normalized_gradient(own: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised volumes, and the gradient of their weighted sum at ``own``."""
    x = own.clone().requires_grad_()
    y = normalize_intensity(x, over_all=True)
    (gradient,) = torch.autograd.grad((y**3).mean(), x)
    return y.detach(), gradient


def adaptive(own: Tensor) -> Tensor:
    layer = torch.linspace(0.5, 1.5, 5).requires_grad_()
    reconstruction = own * layer
    n = own.numel()
    return adaptive_weight(
        reconstruction, reconstruction.detach().sin() / n, own.square() / n, layer, 1e4
    )


def masked_loss(count: int, offset: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss of ``count`` tokens: the mean of w * k for token k; and its weighted gradient."""
    weight = torch.ones((), requires_grad=True)
    loss = (weight * torch.arange(offset, offset + count)).mean()
    hits = torch.arange(offset, offset + count) % 3 == 0
    of_all, accuracy, factor = _over_processes(loss, hits)
    (gradient,) = torch.autograd.grad(loss * factor, weight)
    return of_all, accuracy, gradient, factor


def focal(own: Tensor, switch: str) -> tuple[Tensor, Tensor]:
    """Focal frequency loss of half the volumes, and its gradient there."""
    x = own.clone().requires_grad_()
    module = FocalFrequencyLoss(ratio=1.0, alpha=2.0, **{switch: True})
    loss = module(x, x.detach().flip(2).square())
    (gradient,) = torch.autograd.grad(loss, x)
    return loss.detach(), gradient


def told(rank: int, folder: str) -> tuple[str, str]:
    """What a guard says: of a term that is NaN on process 1 alone, and of the common gradient."""
    sentences: list[str] = []
    nan, fine = torch.tensor(float("nan")), torch.tensor(1.0)
    batch = Batch(torch.rand(1, 1, 2, 2, 2), torch.tensor([0]), [f"case {rank}"])
    for step, (term, norm) in enumerate(((nan if rank else fine, nan), (fine, nan))):
        guard = NonfiniteGuard("stop", Path(folder, "nonfinite"))
        guard.expect({"l1": fine, "perceptual": term}, step, batch)
        try:
            guard.admits(norm)
        except Prod9Error as error:
            sentences.append(str(error))
    return sentences[0], sentences[1]


def work(rank: int, world: int, folder: str) -> None:
    """Compute everything once and write it to ``folder``/rank.pt."""
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    stream = torch.Generator().manual_seed(5)
    found: dict[str, Any] = {"rank": distributed.rank(), "main": distributed.is_main()}
    found["share"] = list(distributed.share_of(range(7)))
    mine = [torch.full((2,), float(rank)), torch.full((3,), rank, dtype=torch.float64)]
    distributed.average(mine)
    found["average"] = mine
    copied = [torch.full((2,), 7.0 + rank)]
    distributed.from_main(copied)
    found["from_main"] = copied[0]
    found["total"] = distributed.total(torch.tensor([1, 10 * rank]))
    found["any"] = distributed.any_of([rank == 0, rank == 1, False, True])
    found["mean"] = distributed.mean(torch.tensor([1.0, 10.0 * rank]))
    draws = distributed.rand(BATCH, 6, generator=stream)
    found["rand"] = draws
    share = torch.tensor([0.2, 0.4, 0.6, 0.8])[rank::world]
    tokens = torch.arange(BATCH * 6).view(BATCH, 6)[rank::world]
    found["mask"] = mask_tokens(tokens, share, 99, None, draws).mask
    with distributed.main_first():
        note = Path(folder, "note")
        found["found"] = note.exists()
        if rank == 0:
            note.write_text("here")
    means = Means()
    for value in ([1.0, 2.0, 4.0], [8.0])[rank]:  # unequal numbers of samples
        means.add({"x": torch.tensor(value)}, 1)
    found["means"] = means.compute()["x"]
    own = volumes()[rank::world]
    found["normalized"], found["gradient"] = normalized_gradient(own)
    found["adaptive"] = adaptive(own)
    found["bad term"], found["bad norm"] = told(rank, folder)
    found["focal"] = {name: focal(own, name) for name in ("ave_spectrum", "batch_matrix")}
    found["masked"] = masked_loss(*((5, 0), (2, 5))[rank])
    torch.save(found, Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()
