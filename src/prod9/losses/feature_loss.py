"""The term of Stage 1 that ``loss.loss_type`` chooses."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prod9.config import Stage1LossConfig
from prod9.errors import Prod9Error
from prod9.registry import LOSSES, imported
from prod9.shapes import Volume


class FeatureLoss(nn.Module):
    """A registered loss with its name in logs and its weight, which :meth:`forward` leaves out.

    ``term`` is a function or module of (prediction, target, generator or None) -> scalar.
    """

    def __init__(self, name: str, weight: float, term: Callable[..., object]) -> None:
        super().__init__()
        self.name, self.weight, self.term = name, weight, term

    def forward(
        self, prediction: Volume, target: Volume, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        """Return the unweighted loss; ``generator`` is the source of all randomness.

        Raises:
            Prod9Error: the term is not a scalar tensor, or has no gradient.
        """
        loss = self.term(prediction, target, generator)
        if not isinstance(loss, Tensor) or loss.ndim:
            found = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise Prod9Error(f"the loss {self.name} must return a scalar tensor, not {found}.")
        if prediction.requires_grad and not loss.requires_grad:
            raise Prod9Error(
                f"the loss {self.name} has no gradient to the reconstruction; compute it with "
                "torch operations of prediction, without detach() or numpy()."
            )
        return loss


def build_feature_loss(config: Stage1LossConfig, *, untrained: bool = False) -> FeatureLoss:
    """Return the loss of ``loss_type``.

    Args:
        config: the section ``loss``.
        untrained: read no weights from disk: enough to count memory and operations.
    """
    loss, section = LOSSES.get(config.loss_type), config.feature_section()
    build = loss.untrained if untrained and loss.untrained else loss.build
    return FeatureLoss(loss.key or config.loss_type, section.weight, imported(build)(section))
