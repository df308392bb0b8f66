"""Stop at the first number that is not one."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prod9.errors import UserError


def require_finite(terms: Mapping[str, Tensor], step: int, names: Sequence[str]) -> None:
    """Check the loss terms of one step, with a single transfer from the device.

    Raises:
        UserError: a term is NaN or infinite; names step, term, value and the batch's volumes.

    """
    finite = torch.stack([torch.isfinite(term.detach()) for term in terms.values()]).tolist()
    for (term, value), ok in zip(terms.items(), finite, strict=True):
        if not ok:
            raise UserError(
                f"the loss term '{term}' became {float(value.detach())} at step {step} on the "
                f"batch {', '.join(names)}; lower training.optimizer.learning_rate, or look at "
                "these volumes; --resume continues from the last checkpoint, if there is one."
            )
