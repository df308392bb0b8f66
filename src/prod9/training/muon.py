"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024); AdamW for all else.

A weight of a linear layer or a convolution is a matrix (outputs, all inputs). Its momentum is often
nearly of low rank: few directions learn, the others hardly. Muon replaces it by the nearest matrix
with orthonormal rows or columns, so that all directions learn alike (Bernstein & Newhouse 2024,
arXiv 2409.20325). Its size is that of AdamW's updates (Liu et al. 2025, arXiv 2502.16982, eq. 4),
so that rates of AdamW are of the right size for it, too.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW

MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; chosen by Jordan et al. so that small singular values grow fastest."""
_ITERATIONS = 5
_SMALLEST_SIDE = 16
"""Of a matrix; smaller ones have too few directions to balance."""
_BY_ADAMW = ("embedding", "head", "modulation", "place")
"""Names of layers that see one condition or one token at a time, or give logits: as in the papers,
these are AdamW's."""


def orthogonalized(matrix: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
    """Return about U V^T of a matrix U S V^T.

    Singular values become 0.7 to 1.2; those below about 1 % of the matrix's norm stay smaller.

    Five Newton-Schulz iterations X <- P X with P = a + b X X^T + c (X X^T)^2. In fp32 on a CPU, in
    bf16 on a GPU, where it is fast and exact enough. On a CPU long matrices are multiplied twice
    only: G = X X^T goes to P G P, and the product of all P is applied once.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x.bfloat16() if x.is_cuda else x.float()
    x = x / (x.norm() + 1e-7)
    a, b, c = _COEFFICIENTS
    if x.is_cuda or x.shape[1] < 2 * x.shape[0]:
        for _ in range(_ITERATIONS):
            gram = x @ x.T
            x = a * x + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ x
    else:
        gram, product = x @ x.T, torch.eye(len(x), device=x.device)
        for _ in range(_ITERATIONS):
            factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
            factor.diagonal().add_(a)
            gram, product = factor @ gram @ factor, factor @ product
        x = product @ x
    return (x if wide else x.T).to(matrix.dtype)


class Muon(AdamW):
    """Muon for the matrices, AdamW for all other parameters.

    Args:
        named: the network's ``named_parameters()``.
        lr: peak learning rate of AdamW.
        matrix_lr: peak learning rate of Muon.
        betas: AdamW's.
        weight_decay: decoupled, of all parameters.
        fused: AdamW as one kernel.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        *,
        lr: float,
        matrix_lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        fused: bool,
    ) -> None:
        found = list(named)
        matrices = [p for name, p in found if is_matrix(name, p)]
        chosen = {id(p) for p in matrices}
        others = [p for _, p in found if id(p) not in chosen]
        groups = [
            {"params": others, "lr": lr, "matrices": False},
            {"params": matrices, "lr": matrix_lr, "matrices": True},
        ]
        super().__init__(
            [group for group in groups if group["params"]],
            betas=betas,
            weight_decay=weight_decay,
            fused=fused,
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; ``closure``, if given, computes the loss and the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"] if group["matrices"] else ():
                if weight.grad is not None:
                    self._step_matrix(weight, group["lr"], group["weight_decay"])
                    weight.grad = None  # AdamW's step leaves it out
        super().step()
        return loss

    def _step_matrix(self, weight: Tensor, rate: float, decay: float) -> None:
        gradient, state = weight.grad, self.state[weight]
        assert gradient is not None
        if "momentum" not in state:
            state["step"] = torch.zeros(())  # AdamW wants one when a state is loaded
            state["momentum"] = torch.zeros_like(weight)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(momentum, MOMENTUM)  # Nesterov
        update = orthogonalized(ahead.flatten(1))
        size = 0.2 * max(update.shape) ** 0.5
        weight.mul_(1 - rate * decay).add_(update.view(weight.shape), alpha=-rate * size)


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a weight that Muon updates."""
    if parameter.ndim < 2 or any(part in name for part in _BY_ADAMW):
        return False
    return min(len(parameter), parameter[0].numel()) >= _SMALLEST_SIDE
