"""The history of a run: every logged value as a row of a CSV file, of which none is ever lost."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from torch import Tensor

from prod9.files import append_whole, atomic_write
from prod9.runtime.distributed import is_main


class HistoryLogger(Logger):
    """Writes what is logged to ``metrics.csv``, a row a call, at once; columns by name.

    Where a new value appears, the file is written anew beside itself and renamed: at any moment it
    holds all rows so far. A file that is there before is put aside (:func:`keep_history`). Only the
    main process writes.

    Args:
        folder: of the file; made when there is something to write.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "metrics.csv"
        self._columns: list[str] = []
        self._rows = 0

    @property
    def name(self) -> str:
        """None of its own: a folder belongs to one run."""
        return ""

    @property
    def version(self) -> str:
        """None, as :attr:`name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The folder."""
        return str(self.path.parent)

    @property
    def log_dir(self) -> str:
        """The folder."""
        return self.save_dir

    def log_metrics(
        self, metrics: Mapping[str, Tensor | float | int], step: int | None = None
    ) -> None:
        """Write a row; ``step`` is the number of rows so far when left out.

        Raises:
            Prod9Error: it cannot be written, as on a full disk; the rows before stay.
        """
        if not is_main():
            return
        row: dict[str, Any] = {
            name: value.item() if isinstance(value, Tensor) else value
            for name, value in metrics.items()
        }
        row["step"] = self._rows if step is None else step
        if not self._columns:
            keep_history(self.path.parent)
        if row.keys() <= set(self._columns) and self.path.exists():
            append_whole(self.path, _text(self._columns, [row]))
        else:
            columns = sorted(row.keys() | set(self._columns))
            self._write_anew(columns, row)
            self._columns = columns
        self._rows += 1

    def _write_anew(self, columns: Sequence[str], row: Mapping[str, Any]) -> None:
        before: list[dict[str, str]] = []
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                before = list(csv.DictReader(file))
        header = dict(zip(columns, columns, strict=True))
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(_text(columns, [header, *before, row]))

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: the run folder has the configuration."""


def _text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns).writerows(rows)
    return text.getvalue().encode()


def keep_history(folder: Path) -> None:
    """Put the values so far aside: a run that is resumed begins ``metrics.csv`` anew.

    They become ``metrics-until-part-N.csv``. Of steps that are done twice both parts have values:
    :func:`prod9.report.curves.read_history` takes those of the newer one.
    """
    newest = folder / "metrics.csv"
    if newest.exists():
        parts = len(list(folder.glob("metrics-until-*.csv")))
        newest.replace(folder / f"metrics-until-part-{parts + 1:05d}.csv")
