"""Trained models inside the package: ``prod9 generate brain-regions`` needs no training."""

import os
from pathlib import Path

from prod9.inference.model_folder import is_model_folder

FOLDER = Path(__file__).parents[1] / "models"
"""A model folder for each name."""


def shipped_names() -> list[str]:
    """Return the names of the models inside the package."""
    return sorted(path.name for path in FOLDER.glob("*") if is_model_folder(path))


def shipped_folder(path: str | os.PathLike[str]) -> Path | None:
    """Return the folder of the model inside the package that ``path`` names.

    None where ``path`` is not such a name, or something of the user's has that name.
    """
    name = str(path)
    return FOLDER / name if name in shipped_names() and not Path(path).exists() else None
