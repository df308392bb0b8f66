"""Tables: columns of a CSV or TSV file, and a folder that a CSV describes."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from prod9.data.folder.layouts.found import SPLIT_NAMES, Found, Gathering
from prod9.data.folder.layouts.names import posix
from prod9.data.volume_files.find import VolumeFile
from prod9.errors import Prod9Error

_NEEDED = ("subject", "channel", "file")
_KNOWN = (*_NEEDED, "session", "class", "split")
_UNKNOWN = {"", "n/a", "na", "nan", "null", "none"}
_MOST_BYTES = 64 << 20


def recognise(root: Path, volumes: Sequence[VolumeFile]) -> Found | None:
    """Understand a folder by its only CSV file, if that has at least two of the three columns."""
    tables = [path for path in root.iterdir() if path.suffix.lower() == ".csv"]
    if len(tables) != 1 or len({*_NEEDED} & columns_of(tables[0]).keys()) < 2:
        return None
    return read_table(tables[0])


def read_table(path: Path) -> Found:
    """Understand a CSV file with the columns ``subject``, ``channel`` and ``file``.

    ``session``, ``class`` and ``split`` are known; every other column is a covariate. Files are
    relative to the folder of the CSV file.

    Raises:
        Prod9Error: it cannot be read, or lacks one of the three columns.
    """
    columns = columns_of(path)
    for name in _NEEDED:
        if name not in columns:
            raise Prod9Error(
                f"{path} has no column {name}; its first line must name {', '.join(_NEEDED)}, and "
                "may name session, class, split and covariates."
            )
    others = {name: values_of(texts) for name, texts in columns.items() if name not in _KNOWN}
    gathering = Gathering(path.parent)
    gathering.classes_expected = "class" in columns
    known: dict[str, dict[str, float | str | None]] = {}
    for row, (subject, channel, file) in enumerate(
        zip(*(columns[name] for name in _NEEDED), strict=True)
    ):
        where = f"{path}, line {row + 2}"
        session, class_name, split = (
            columns[key][row] if key in columns else "" for key in ("session", "class", "split")
        )
        if not (subject and channel and file):
            gathering.problems.append(f"{where} has no subject, channel or file; fill it in.")
            continue
        scan = f"{subject}_{session}" if session else subject
        if split and split.lower() not in SPLIT_NAMES:
            gathering.bad(scan, f"has the split {split} ({where}); write train, val or test")
        covariates = {name: values[row] for name, values in others.items()}
        before = known.setdefault(scan, covariates)
        for name in others:
            if before[name] != covariates[name]:
                values = f"{before[name]} and {covariates[name]}"
                gathering.bad(scan, f"has two values of {name}, {values} ({where}); keep one")
        gathering.add(
            scan,
            channel,
            posix(file),
            subject=subject,
            class_name=class_name or None,
            split=SPLIT_NAMES.get(split.lower()),
            covariates=covariates,
            where=where,
        )
    return gathering.found(f"table {path.name}", list(dict.fromkeys(columns["channel"])))


def columns_of(path: Path) -> dict[str, list[str]]:
    """Return a table's columns by their names in lower case; a short line has empty cells.

    Cells are separated by tabs in a TSV file, else by comma or semicolon, whichever the first line
    has more of.

    Raises:
        Prod9Error: it cannot be read, is empty, has a column twice or a line with too many cells.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise Prod9Error(f"{path} is larger than any table of scans; choose another file.")
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds NUL characters")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter))
    except (OSError, ValueError, csv.Error) as error:
        raise Prod9Error(f"{path} cannot be read ({error}); write it again in UTF-8.") from error
    if not rows:
        raise Prod9Error(f"{path} is empty; its first line must name the columns.")
    names = [name.strip().lower() for name in rows[0]]
    if len({*names}) < len(names) or "" in names:
        raise Prod9Error(f"{path}, line 1: a column has no name, or that of another; rename it.")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for line, row in enumerate(rows[1:], 2):
        if len(row) > len(names):
            raise Prod9Error(
                f"{path}, line {line} has {len(row)} cells for {len(names)} columns; quote the "
                "cells that hold a separator."
            )
        for name, cell in zip(names, [*row, *[""] * (len(names) - len(row))], strict=True):
            columns[name].append(cell.strip())
    return columns


def values_of(texts: Sequence[str]) -> list[float | str | None]:
    """Return a column as numbers if all its cells are numbers, else as text; None where empty."""
    known = [None if text.lower() in _UNKNOWN else text for text in texts]
    try:
        numbers = [None if text is None else float(text) for text in known]
    except ValueError:
        return [*known]
    return [*numbers] if all(n is None or math.isfinite(n) for n in numbers) else [*known]
