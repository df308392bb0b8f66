"""The logged values of a run that is resumed: each once, whatever was done twice."""

import csv
import io
from pathlib import Path

from prod9.files import write_text
from prod9.training.position import Position


def keep_history(folder: Path, position: Position) -> None:
    """Put the values so far aside, for Lightning's CSV logger begins ``metrics.csv`` anew.

    They become ``metrics-until-part-N.csv``. Steps after ``position`` were lost and will be done
    again: their values are left out.
    """
    newest = folder / "metrics.csv"
    if not newest.exists():
        return
    parts = len(list(folder.glob("metrics-until-*.csv")))
    aside = folder / f"metrics-until-part-{parts + 1:05d}.csv"
    write_text(aside, _until(newest.read_text(encoding="utf-8", errors="replace"), position))
    newest.unlink()


def _until(text: str, position: Position) -> str:
    """Return the lines of a CSV file that belong to the steps before ``position``."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    kept = io.StringIO(newline="")
    writer = csv.DictWriter(kept, reader.fieldnames or (), extrasaction="ignore")
    writer.writeheader()
    for row in reader:
        if _is_before(row, position):
            writer.writerow(row)
    return kept.getvalue()


def _is_before(row: dict[str, str | None], position: Position) -> bool:
    try:
        step = int(row.get("step") or "")
    except ValueError:  # a line torn by a crash
        return False
    # The validation that follows the last step of an epoch bears that step's number; where the
    # epoch is not over, it will be done again.
    validation = any(value and name.startswith("val/") for name, value in row.items())
    pending = int(validation and position.batches > 0)
    return step < position.steps - pending
