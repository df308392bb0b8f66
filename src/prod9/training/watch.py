"""Numbers that are none: found before anything is learned from them, and what happens then."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from prod9.data.token_store import TokenBatch
from prod9.data.volumes import Batch
from prod9.errors import UserError
from prod9.files import atomic_write
from prod9.ranks import is_main, rank, total, world_size

Policy = Literal["stop", "skip", "rollback"]
IN_A_ROW = 10
"""So many steps without a usable gradient, or returns to the same checkpoint, end a run."""
_KEPT = 20
"""No more batches than this are saved and told of; a disk is finite."""
_GRADIENT = "gradient"


class Watch:
    """Looks at the loss terms and the gradient of each step, with one transfer from the device.

    In a run of several processes all decide alike: what one of them finds counts for all.

    Args:
        policy: ``stop`` raises, ``skip`` leaves the step out, ``rollback`` leaves it out and asks
            for a return to the last checkpoint (:attr:`rollback_due`).
        folder: where the batches go, for inspection.

    """

    def __init__(self, policy: Policy, folder: Path) -> None:
        self.policy, self.folder = policy, folder
        self.rollback_due = False
        self._terms: dict[str, Tensor] = {}
        self._batch: Batch | TokenBatch | None = None
        self._step = 0
        self._row = self._found = 0
        """Times in a row, and in all."""
        self._last = -2
        self._learned = True

    def expect(self, terms: Mapping[str, Tensor], step: int, batch: Batch | TokenBatch) -> None:
        """Note what the coming gradient is made of: scalar loss terms of ``batch``."""
        self._terms = {name: term.detach() for name, term in terms.items()}
        self._step, self._batch = step, batch

    def admits(self, norm: Tensor | None) -> bool:
        """Return whether the terms and the gradient's ``norm`` are finite numbers.

        None for the norm leaves it out: under a loss scale an infinite one is routine, and the
        scaler leaves the step out itself.

        Raises:
            UserError: they are not, and ``policy`` is ``stop``, or it was the 10th time in a row.

        """
        values = dict(self._terms)
        if norm is not None:
            values[_GRADIENT] = norm.detach()
        flags = torch.stack([~torch.isfinite(value) for value in values.values()])
        bad = total(flags.float()).tolist()
        self._terms = {}
        self._learned = not any(bad)
        if self._learned:
            return True
        first = next(name for name, count in zip(values, bad, strict=True) if count)
        self._react(first, float(values[first]))
        return False

    def saved(self) -> None:
        """Take note of a new checkpoint: one that can be returned to anew, if it is another."""
        if self.policy == "rollback" and self._learned:
            self._row = 0

    def _react(self, name: str, value: float) -> None:
        self._found += 1
        again = self.policy == "rollback" or self._last in (self._step, self._step - 1)
        if self._last != self._step:  # the second network of the same step counts once
            self._row = self._row + 1 if again else 1
        self._last = self._step
        assert self._batch is not None
        what = _sentence(name, value, self._step, self._batch.names)
        if self.policy == "stop" or self._row >= IN_A_ROW:
            often = "" if self._row < IN_A_ROW else f" ({self._row} times in a row)"
            raise UserError(
                f"{what}{often}; {self._keep()}lower training.optimizer.learning_rate, or look at "
                "these volumes; --resume continues from the last checkpoint, if there is one."
            )
        self.rollback_due = self.policy == "rollback"
        if self._found <= _KEPT:
            kept = self._keep()
            if is_main():
                then = "left out" if self.policy == "skip" else "going back to the last checkpoint"
                console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
                console.print(f"{what}; {kept}{then} (trainer.on_nan={self.policy})")

    def _keep(self) -> str:
        """Save the batch; return a clause that says where."""
        assert self._batch is not None
        own = f"-rank{rank()}" if world_size() > 1 else ""
        path = self.folder / f"step-{self._step:08d}{own}.npz"
        try:
            save_batch(path, self._batch)
        except UserError as error:  # what was found must be told all the same
            return f"the batch could not be saved ({error}); "
        return f"the batch is saved in {path}; "


def save_batch(path: Path, batch: Batch | TokenBatch) -> None:
    """Write the tensors and names of a batch as plain arrays, under the names of its fields.

    Raises:
        UserError: the file cannot be written.

    """
    arrays: dict[str, np.ndarray] = {}
    for name, part in batch._asdict().items():
        if isinstance(part, Tensor):
            arrays[name] = part.detach().cpu().numpy()
        elif part is not None:
            arrays[name] = np.array(part, dtype=np.str_)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _sentence(name: str, value: float, step: int, names: list[str]) -> str:
    what = "the gradient's norm" if name == _GRADIENT else f"the loss term '{name}'"
    # (Of the other processes only this is known here.)
    became = "NaN or infinite on another process" if math.isfinite(value) else f"{value}"
    return f"{what} became {became} at step {step} on the batch {', '.join(names)}"
