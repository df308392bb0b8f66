"""NaN and infinite loss terms and gradients: found before an optimizer uses them."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from prod9.data.crops import Batch
from prod9.data.tokens.store import TokenBatch
from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.runtime.console import say
from prod9.runtime.distributed import gather, rank, total, world_size

Policy = Literal["stop", "skip", "rollback"]
IN_A_ROW = 10
"""A run ends after this many steps in a row without a usable gradient, or this many returns to the
same checkpoint."""
OVERFLOWS_IN_A_ROW = 50
"""A run ends after this many fp16 overflows in a row: the loss scale, 2^16 at first, is halved each
time."""
_MOST_SAVED = 20
"""At most this many batches are saved and reported."""
_GRADIENT = "gradient"
_REMEDY = (
    "lower training.optimizer.learning_rate; --resume continues from the last checkpoint, if there "
    "is one."
)


class NonfiniteGuard:
    """Check the loss terms and the gradient of each step, with one transfer from the device.

    All processes of a run decide alike: a value that is not finite in one of them counts for all,
    and the volumes that are named are those of the processes that found it.

    Args:
        policy: ``stop`` raises; ``skip`` drops the step; ``rollback`` drops it and asks for a
            return to the last checkpoint (:attr:`rollback_due`).
        folder: the batches are saved here for inspection.
    """

    def __init__(self, policy: Policy, folder: Path) -> None:
        self.policy, self.folder = policy, folder
        self.rollback_due = False
        self.learned = True
        """Whether the last gradient was finite."""
        self.found = 0
        """Steps of the whole run with values that were not finite."""
        self._overflows: dict[str, int] = {}
        """Number in a row, for each network."""
        self._terms: dict[str, Tensor] = {}
        self._batch: Batch | TokenBatch | None = None
        self._step = 0
        self._in_a_row = 0
        self._last = -2

    def expect(self, terms: Mapping[str, Tensor], step: int, batch: Batch | TokenBatch) -> None:
        """Note the scalar loss terms of ``batch`` (this process's) that the next gradient is of."""
        self._terms = {name: term.detach() for name, term in terms.items()}
        self._step, self._batch = step, batch

    def admits(self, norm: Tensor, *, scaled: bool = False, network: str = "") -> bool:
        """Return whether the terms and the gradient's ``norm`` are finite.

        With ``scaled`` the norm does not count: the loss scaler of fp16 training skips the step of
        an infinite norm itself. Only 50 in a row for the same ``network`` end the run.

        Raises:
            Prod9Error: they are not finite, and ``policy`` is ``stop``, or it was the 10th time in
                a row; or the 50th overflow in a row.
        """
        values = {**self._terms, _GRADIENT: norm.detach()}
        flags = torch.stack([~torch.isfinite(value) for value in values.values()])
        bad = total(flags.float()).tolist()
        self.learned = not any(bad)
        if scaled and not any(bad[:-1]):
            row = 0 if self.learned else self._overflows.get(network, 0) + 1
            self._overflows[network] = row
            if row >= OVERFLOWS_IN_A_ROW:
                often = f"{row} times in a row, at ever smaller scales"
                found = self._report(_GRADIENT, float(norm), often)
                raise Prod9Error(f"{found}set trainer.precision=bf16, or {_REMEDY}")
            return True
        if not self.learned:
            first = next(name for name, count in zip(values, bad, strict=True) if count)
            self._react(first, float(values[first]))
        return self.learned

    def saved(self) -> None:
        """Note that a new checkpoint was written: returns to it are counted from 0."""
        if self.policy == "rollback" and self.learned:
            self._in_a_row = 0

    def _react(self, name: str, value: float) -> None:
        self.found += 1
        again = self.policy == "rollback" or self._last in (self._step, self._step - 1)
        if self._last != self._step:  # the second network of a step does not count again
            self._in_a_row = self._in_a_row + 1 if again else 1
        self._last = self._step
        if self.policy == "stop" or self._in_a_row >= IN_A_ROW:
            since = "after the same checkpoint" if self.policy == "rollback" else "in a row"
            often = "" if self._in_a_row < IN_A_ROW else f"{self._in_a_row} times {since}"
            raise Prod9Error(
                f"{self._report(name, value, often)}look at these volumes, or {_REMEDY}"
            )
        self.rollback_due = self.policy == "rollback"
        if self.found <= _MOST_SAVED:
            then = "left out" if self.policy == "skip" else "going back to the last checkpoint"
            say(f"{self._report(name, value)}{then} (trainer.on_nan={self.policy})")

    def _report(self, name: str, value: float, often: str = "") -> str:
        """Save the batches in question; return what was found, and where they are.

        All processes call this. The gradient is not finite in all of them, a term perhaps in one.
        """
        assert self._batch is not None
        own = None
        if not math.isfinite(value):
            own = (value, self._batch.names, self._save(self._batch))
        found = [part for part in gather(own) if part is not None]
        what = "the gradient's norm" if name == _GRADIENT else f"the loss term '{name}'"
        names = ", ".join(name for _, part, _ in found for name in part)
        saved = "".join(f"{clause}; " for _, _, clause in found)
        where = f"at step {self._step} on the batch {names}{often and f' ({often})'}"
        return f"{what} became {found[0][0]} {where}; {saved}"

    def _save(self, batch: Batch | TokenBatch) -> str:
        """Write tensors and names of ``batch`` to an npz file; return a clause that says where."""
        own = f"-rank{rank()}" if world_size() > 1 else ""
        path = self.folder / f"step-{self._step:08d}{own}.npz"
        arrays = {
            name: part.detach().cpu().numpy() if isinstance(part, Tensor) else np.array(part, str)
            for name, part in batch._asdict().items()
            if part is not None
        }
        try:
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except Prod9Error as error:  # the reason why the run ends is more important
            return f"the batch could not be saved ({error})"
        return f"the batch is saved in {path}"
