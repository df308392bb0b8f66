"""What ``--overwrite`` may replace: files that prod9 wrote, as a record beside them shows.

Every folder that prod9 fills has a record: a run its ``config.yaml``, a generated set its manifest.
The record is written first and removed last, so that what a killed command leaves is known too.
"""

import json
import os
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import yaml

from prod9.errors import Prod9Error


def read_record(path: Path, keys: Set[str]) -> dict[str, Any] | None:
    """Return the mapping in a JSON or YAML file; None if it is missing, damaged or lacks keys."""
    with suppress(OSError, ValueError, RecursionError, yaml.YAMLError):
        text = path.read_text(encoding="utf-8")
        content: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        if isinstance(content, dict) and keys <= content.keys():
            return cast("dict[str, Any]", content)
    return None


def refuse_foreign(paths: Iterable[Path]) -> None:
    """Raise an error if any of ``paths``, which no record says are prod9's, is there."""
    for path in paths:
        if os.path.lexists(path):
            raise Prod9Error(
                f"{path} is in the way and no record shows that prod9 wrote it; move it away, or "
                "choose another folder."
            )


def matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Return what is in ``folder`` under the names ``patterns``, in their order."""
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def remove_own(folder: Path, paths: Iterable[Path]) -> None:
    """Remove files of ``folder``, and those of its sub-folders that are empty then."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise Prod9Error(
                f"cannot remove {path}: {error.strerror or error}; remove it by hand, or choose "
                "another folder."
            ) from error
        if path.parent != folder:
            with suppress(OSError):  # something else is in it
                path.parent.rmdir()
