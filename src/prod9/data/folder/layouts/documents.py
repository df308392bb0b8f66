"""JSON files that describe a folder."""

import json
from pathlib import Path
from typing import Any, cast

from prod9.errors import Prod9Error

Document = dict[str, Any]
_MOST_BYTES = 64 << 20


def read_document(path: Path) -> Document:
    """Read a JSON file that is a mapping of keys to values.

    Raises:
        Prod9Error: it cannot be read, or is something else.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise Prod9Error(f"{path} is larger than any list of scans; choose another file.")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        shown = json.dumps(content, ensure_ascii=False)
        shown.encode()  # not of surrogates, which escapes can write
        if r"\u0000" in shown:
            raise ValueError("it holds NUL characters")
    except (OSError, ValueError, RecursionError) as error:
        raise Prod9Error(
            f"{path} cannot be read ({error}); repair it, or take it out of the folder."
        ) from error
    if not isinstance(content, dict):
        raise Prod9Error(
            f"{path} is no mapping of keys to values; repair it, or take it out of the folder."
        )
    return cast(Document, content)


def document_of(root: Path, name: str = "dataset.json") -> Document | None:
    """Read a JSON file of a folder; None where there is none."""
    return read_document(root / name) if (root / name).is_file() else None


def numbered(document: Document, key: str, path: Path) -> tuple[str, ...]:
    """Return the names under ``key``, in the order of their numbers ({"0": "CT"} or ["CT"]).

    Raises:
        Prod9Error: they are something else, or one of them is there twice.
    """
    names = document.get(key)
    try:
        if isinstance(names, dict):
            by_number = {int(n): str(name) for n, name in cast("dict[str, Any]", names).items()}
            names = [by_number[n] for n in range(len(by_number))]
        if not isinstance(names, list) or not names:
            raise ValueError(f"it is {names!r}")
    except (KeyError, ValueError) as error:
        raise Prod9Error(
            f'{path}: {key} does not number the channels ({error}); write {{"0": "CT"}}.'
        ) from error
    given = tuple(str(name) for name in cast("list[Any]", names))
    if len({*given}) < len(given):
        raise Prod9Error(f"{path}: {key} names a channel twice ({', '.join(given)}); rename one.")
    return given


def licence_of(document: Document) -> str:
    """Return the licence that a document states, or ""."""
    stated = (document.get(key) for key in ("licence", "license", "License", "Licence"))
    return next((text for text in stated if isinstance(text, str)), "")


def entries_of(document: Document, key: str, path: Path) -> list[Any]:
    """Return the list under ``key``; an empty one where there is none.

    Raises:
        Prod9Error: it is no list.
    """
    entries = document.get(key) or []
    if not isinstance(entries, list):
        raise Prod9Error(f"{path}: {key} is no list of scans; repair it.")
    return cast("list[Any]", entries)
