"""Numbers that are none: found before anything is learned from them, and what happens then."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor

from prod9.data.crops import Batch
from prod9.data.tokens.store import TokenBatch
from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.runtime.distributed import is_main, rank, total, world_size

Policy = Literal["stop", "skip", "rollback"]
IN_A_ROW = 10
"""So many steps without a usable gradient, or returns to the same checkpoint, end a run."""
OVERFLOWS_IN_A_ROW = 50
"""So many gradients that fp16's loss scale cannot mend end a run: it is halved each time, and
2^16, where it begins, is 2^-34 by then."""
_KEPT = 20
"""No more batches than this are saved and told of; a disk is finite."""
_GRADIENT = "gradient"
_Found: TypeAlias = tuple[str, list[str], str]
"""The value, the volumes' names, where they are saved."""


class NonfiniteGuard:
    """Looks at the loss terms and the gradient of each step, with one transfer from the device.

    In a run of several processes all decide alike: what one of them finds counts for all, and the
    volumes that are named are those of the processes that found it.

    Args:
        policy: ``stop`` raises, ``skip`` leaves the step out, ``rollback`` leaves it out and asks
            for a return to the last checkpoint (:attr:`rollback_due`).
        folder: where the batches go, for inspection.
    """

    def __init__(self, policy: Policy, folder: Path) -> None:
        self.policy, self.folder = policy, folder
        self.rollback_due = False
        self.learned = True
        """Whether the last gradient could be learned from."""
        self.found = 0
        """Steps whose numbers were none, in the whole run."""
        self._overflows: dict[str, int] = {}
        """In a row, by network."""
        self._told = 0
        self._terms: dict[str, Tensor] = {}
        self._batch: Batch | TokenBatch | None = None
        self._step = 0
        self._row = 0
        """Times in a row."""
        self._last = -2

    def expect(self, terms: Mapping[str, Tensor], step: int, batch: Batch | TokenBatch) -> None:
        """Note what the coming gradient is made of: this process's scalar terms of ``batch``."""
        self._terms = {name: term.detach() for name, term in terms.items()}
        self._step, self._batch = step, batch

    def admits(self, norm: Tensor, *, scaled: bool = False, network: str = "") -> bool:
        """Return whether the terms and the gradient's ``norm`` are finite numbers.

        ``scaled``: the norm does not count. Under a loss scale an infinite one is routine, and the
        scaler leaves the step out itself; only where no scale helps ``network``, the run ends.

        Raises:
            Prod9Error: they are not, and ``policy`` is ``stop``, or it was the 10th time in a row;
                or the 50th overflow in a row.
        """
        values = {**self._terms, _GRADIENT: norm.detach()}
        flags = torch.stack([~torch.isfinite(value) for value in values.values()])
        bad = total(flags.float()).tolist()
        self._terms = {}
        self.learned = not any(bad)
        if scaled and not any(bad[:-1]):
            self._count_overflow(network, norm)
            return True
        if self.learned:
            return True
        first = next(name for name, count in zip(values, bad, strict=True) if count)
        self._react(first, float(values[first]))
        return False

    def _count_overflow(self, network: str, norm: Tensor) -> None:
        row = 0 if self.learned else self._overflows.get(network, 0) + 1
        self._overflows[network] = row
        if row >= OVERFLOWS_IN_A_ROW:
            often = f"{row} times in a row, at ever smaller scales"
            raise Prod9Error(
                f"{self._tell(_GRADIENT, float(norm), often)}"
                "set trainer.precision=bf16, or lower training.optimizer.learning_rate; --resume "
                "continues from the last checkpoint, if there is one."
            )

    def saved(self) -> None:
        """Take note of a new checkpoint: one that can be returned to anew, if it is another."""
        if self.policy == "rollback" and self.learned:
            self._row = 0

    def sum_up(self) -> None:
        """At the end of a run: say how much of it was left out, if anything was."""
        if self.found and is_main():
            steps = "1 step was" if self.found == 1 else f"{self.found} steps were"
            _say(
                f"{steps} left out of this run, for loss terms or gradients that were NaN or "
                f"infinite (trainer.on_nan={self.policy}); the first batches are in {self.folder}"
            )

    def _react(self, name: str, value: float) -> None:
        self.found += 1
        again = self.policy == "rollback" or self._last in (self._step, self._step - 1)
        if self._last != self._step:  # the second network of the same step counts once
            self._row = self._row + 1 if again else 1
        self._last = self._step
        if self.policy == "stop" or self._row >= IN_A_ROW:
            since = "after the same checkpoint" if self.policy == "rollback" else "in a row"
            often = "" if self._row < IN_A_ROW else f"{self._row} times {since}"
            raise Prod9Error(
                f"{self._tell(name, value, often)}lower training.optimizer.learning_rate, or look "
                "at these volumes; --resume continues from the last checkpoint, if there is one."
            )
        self.rollback_due = self.policy == "rollback"
        if self._told < _KEPT:
            self._told += 1
            told = self._tell(name, value)
            if is_main():
                then = "left out" if self.policy == "skip" else "going back to the last checkpoint"
                _say(f"{told}{then} (trainer.on_nan={self.policy})")

    def _tell(self, name: str, value: float, often: str = "") -> str:
        """Save the batches in which it was found; return what was found, and where they are.

        All processes come here. The gradient is that of all: so is then the batch.
        """
        assert self._batch is not None
        own = None
        if not math.isfinite(value):
            own = (str(value), self._batch.names, self._keep())
        found = [part for part in _of_all(own) if part is not None]
        what = "the gradient's norm" if name == _GRADIENT else f"the loss term '{name}'"
        names = ", ".join(name for _, part, _ in found for name in part)
        kept = "".join(clause for _, _, clause in found)
        where = f"at step {self._step} on the batch {names}{often and f' ({often})'}"
        return f"{what} became {found[0][0]} {where}; {kept}"

    def _keep(self) -> str:
        """Save the batch; return a clause that says where."""
        assert self._batch is not None
        own = f"-rank{rank()}" if world_size() > 1 else ""
        path = self.folder / f"step-{self._step:08d}{own}.npz"
        try:
            save_batch(path, self._batch)
        except Prod9Error as error:  # what was found must be told all the same
            return f"the batch could not be saved ({error}); "
        return f"the batch is saved in {path}; "


def save_batch(path: Path, batch: Batch | TokenBatch) -> None:
    """Write the tensors and names of a batch as plain arrays, under the names of its fields.

    Raises:
        Prod9Error: the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, part in batch._asdict().items():
        if isinstance(part, Tensor):
            arrays[name] = part.detach().cpu().numpy()
        elif part is not None:
            arrays[name] = np.array(part, dtype=np.str_)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _of_all(found: _Found | None) -> list[_Found | None]:
    """Return what each process has found, in their order."""
    if world_size() == 1:
        return [found]
    everyone: list[_Found | None] = [None] * world_size()
    dist.all_gather_object(everyone, found)
    return everyone


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(text)
