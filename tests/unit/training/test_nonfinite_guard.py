from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prod9.data.crops import Batch
from prod9.data.tokens.store import TokenBatch
from prod9.errors import Prod9Error
from prod9.training.nonfinite import (
    IN_A_ROW,
    OVERFLOWS_IN_A_ROW,
    NonfiniteGuard,
    Policy,
)

FINE = {"l1": torch.tensor(0.5), "adversarial": torch.tensor(-2.0)}
NORM = torch.tensor(3.0)
NAN = torch.tensor(float("nan"))
BATCH = Batch(torch.rand(2, 1, 3, 3, 3), torch.tensor([0, 1]), ["toy/3", "toy/1"])


def look(
    guard: NonfiniteGuard,
    step: int,
    terms: dict[str, Tensor] = FINE,
    norm: Tensor = NORM,
    **where: Any,
) -> bool:
    guard.expect(terms, step, BATCH)
    return guard.admits(norm, **where)


@pytest.mark.parametrize("policy", ["stop", "skip", "rollback"])
def test_numbers_pass(tmp_path: Path, policy: Policy) -> None:
    guard = NonfiniteGuard(policy, tmp_path / "nonfinite")
    assert all(look(guard, step) for step in range(3))
    assert not guard.rollback_due
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_sentence(value: float, tmp_path: Path) -> None:
    terms = {**FINE, "perceptual": torch.tensor(value, requires_grad=True)}
    with pytest.raises(Prod9Error) as caught:
        look(NonfiniteGuard("stop", tmp_path), 17, terms)
    assert str(caught.value) == (
        f"the loss term 'perceptual' became {value} at step 17 on the batch toy/3, toy/1; the "
        f"batch is saved in {tmp_path / 'step-00000017.npz'}; look at these volumes, or lower "
        "training.optimizer.learning_rate; --resume continues from the last checkpoint, if there "
        "is one."
    )


def test_the_first_bad_term_is_named(tmp_path: Path) -> None:
    terms = {"l1": torch.tensor(float("inf")), "b": NAN}
    with pytest.raises(Prod9Error, match="'l1' became inf"):
        look(NonfiniteGuard("stop", tmp_path), 0, terms, NAN)


def test_a_gradient_that_is_none_is_found(tmp_path: Path) -> None:
    with pytest.raises(Prod9Error, match="the gradient's norm became nan at step 4 on"):
        look(NonfiniteGuard("stop", tmp_path), 4, norm=NAN)


def test_under_a_loss_scale_only_terms_count(tmp_path: Path) -> None:
    guard = NonfiniteGuard("stop", tmp_path)
    assert look(guard, 4, norm=NAN, scaled=True)
    assert not guard.learned  # the scaler leaves the step out
    assert look(guard, 5, scaled=True)
    assert guard.learned
    with pytest.raises(Prod9Error, match="'l1'"):
        look(guard, 6, {"l1": NAN}, scaled=True)


def test_a_gradient_that_no_loss_scale_mends_ends_the_run(tmp_path: Path) -> None:
    """Counted for each network: that the other one's is fine mends nothing."""
    guard = NonfiniteGuard("skip", tmp_path)
    for step in range(2 * OVERFLOWS_IN_A_ROW - 1):
        assert look(guard, step, scaled=True)
        if step != OVERFLOWS_IN_A_ROW - 1:  # once it is a number in between
            assert look(guard, step, norm=NAN, scaled=True, network="_discriminator")
        else:
            assert look(guard, step, scaled=True, network="_discriminator")
    with pytest.raises(Prod9Error) as caught:
        look(guard, 99, norm=NAN, scaled=True, network="_discriminator")
    assert str(caught.value).startswith(
        "the gradient's norm became nan at step 99 on the batch toy/3, toy/1 (50 times in a row, "
        f"at ever smaller scales); the batch is saved in {tmp_path / 'step-00000099.npz'}; "
        "set trainer.precision=bf16, or lower"
    )


def test_the_batch_is_saved_as_plain_arrays(tmp_path: Path) -> None:
    assert not look(NonfiniteGuard("skip", tmp_path), 3, {"l1": NAN})
    with np.load(tmp_path / "step-00000003.npz", allow_pickle=False) as saved:
        assert sorted(saved) == ["labels", "names", "volumes"]
        assert saved["volumes"].tolist() == BATCH.volumes.tolist()
        assert saved["labels"].tolist() == [0, 1]
        assert saved["names"].tolist() == ["toy/3", "toy/1"]


def test_tokens_are_saved_with_their_sources(tmp_path: Path) -> None:
    tokens = torch.randint(9, (2, 2, 2, 2))
    own = TokenBatch(tokens, torch.tensor([1, 0]), ["ü/1", "b"], origin=torch.rand(2, 3))
    guard = NonfiniteGuard("skip", tmp_path)
    guard.expect({"l1": NAN}, 3, own)
    assert not guard.admits(NORM)
    with np.load(tmp_path / "step-00000003.npz", allow_pickle=False) as saved:
        assert sorted(saved) == ["coarse", "labels", "names", "origin", "tokens"]
        assert saved["tokens"].tolist() == tokens.tolist()
        assert saved["names"].tolist() == ["ü/1", "b"]


def test_a_batch_that_cannot_be_saved_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Prod9Error, match=r"'l1' became nan .*could not be saved \(cannot"):
        look(NonfiniteGuard("stop", tmp_path / "file"), 0, {"l1": NAN})


def test_skipping_says_so_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = NonfiniteGuard("skip", tmp_path)
    assert [look(guard, step, norm=NAN if step % 2 else NORM) for step in range(60)] == [
        step % 2 == 0 for step in range(60)
    ]
    assert not guard.rollback_due
    # A disk is finite: only the first are saved and told of.
    assert len(list(tmp_path.iterdir())) == 20
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0].startswith("the gradient's norm became nan at step 1 on the batch toy/3, toy/1")
    assert lines[0].endswith("left out (trainer.on_nan=skip)")


def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    guard = NonfiniteGuard("skip", tmp_path)
    for step in range(IN_A_ROW - 1):
        assert not look(guard, step, norm=NAN)
    assert look(guard, IN_A_ROW)
    for step in range(20, 20 + IN_A_ROW - 1):
        assert not look(guard, step, norm=NAN)
    with pytest.raises(Prod9Error, match=r"at step 29 .*\(10 times in a row\)"):
        look(guard, 29, norm=NAN)


def test_two_networks_of_a_step_count_once(tmp_path: Path) -> None:
    guard = NonfiniteGuard("skip", tmp_path)
    for step in range(IN_A_ROW - 1):
        assert look(guard, step)  # the generator's numbers are fine in every step
        assert not look(guard, step, {"discriminator": NAN})
    with pytest.raises(Prod9Error, match="'discriminator'"):
        look(guard, IN_A_ROW - 1, {"discriminator": NAN})


def test_a_rollback_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = NonfiniteGuard("rollback", tmp_path)
    assert not look(guard, 3, norm=NAN)
    assert guard.rollback_due
    assert "going back to the last checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("saves", [True, False])
def test_returning_to_the_same_checkpoint_has_an_end(tmp_path: Path, saves: bool) -> None:
    guard = NonfiniteGuard("rollback", tmp_path)
    for step in range(0, 200, 10):
        last = step // 10 == IN_A_ROW - 1
        if last and not saves:
            with pytest.raises(Prod9Error, match="10 times after the same checkpoint"):
                look(guard, step, norm=NAN)
            break
        assert not look(guard, step, norm=NAN)
        assert look(guard, step + 1)  # good steps between do not make it new
        if saves and step % 50 == 0:
            guard.saved()
