import pytest
import torch

from prod9.errors import UserError
from prod9.training.watch import require_finite

FINE = {"l1": torch.tensor(0.5), "adversarial": torch.tensor(-2.0)}


def test_finite_terms_pass() -> None:
    require_finite(FINE, 3, ["a"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_sentence(value: float) -> None:
    terms = {**FINE, "perceptual": torch.tensor(value, requires_grad=True)}
    with pytest.raises(UserError) as caught:
        require_finite(terms, 17, ["toy/3", "toy/1"])
    assert str(caught.value) == (
        f"the loss term 'perceptual' became {value} at step 17 on the batch toy/3, toy/1; lower "
        "training.optimizer.learning_rate, or look at these volumes; --resume continues "
        "from the last checkpoint, if there is one."
    )


def test_the_first_bad_term_is_named() -> None:
    terms = {"l1": torch.tensor(float("inf")), "b": torch.tensor(float("nan"))}
    with pytest.raises(UserError, match="'l1' became inf"):
        require_finite(terms, 0, ["x"])
