"""The term of Stage 1 that ``loss.loss_type`` chooses."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prod9.config import Stage1LossConfig
from prod9.registry import LOSSES, imported
from prod9.shapes import Volume


class FeatureLoss(nn.Module):
    """A registered loss with its name in logs and its weight, which :meth:`forward` leaves out.

    ``term`` is a function or module of (prediction, target, generator or None) -> scalar.
    """

    def __init__(self, name: str, weight: float, term: Callable[..., Tensor]) -> None:
        super().__init__()
        self.name, self.weight, self.term = name, weight, term

    def forward(
        self, prediction: Volume, target: Volume, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""]:
        return self.term(prediction, target, generator)


def build_feature_loss(config: Stage1LossConfig, *, untrained: bool = False) -> FeatureLoss:
    """Return the loss of ``loss_type``.

    Args:
        config: the section ``loss``.
        untrained: read no weights from disk: enough to count memory and operations.
    """
    loss, section = LOSSES.get(config.loss_type), config.feature_section()
    build = loss.untrained if untrained and loss.untrained else loss.build
    return FeatureLoss(loss.key or config.loss_type, section.weight, imported(build)(section))
