"""What an export records of its training, read without asking whether its data set is known."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import yaml
from pydantic import BaseModel, ValidationError

from prod9.errors import Prod9Error

Section = TypeVar("Section", bound=BaseModel)


def device_of(name: str | None) -> str:
    """Return ``name``, else a GPU where there is one."""
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def recorded_in(text: str) -> dict[str, Any]:
    """Return a recorded configuration as plain data."""
    content = yaml.safe_load(text.replace("$${", "${"))
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def section_of(kind: type[Section], values: object) -> Section:
    """Return a section of a recorded configuration; defaults where nothing is recorded.

    Raises:
        Prod9Error: it is of another version.
    """
    try:
        return kind.model_validate(values or {})
    except ValidationError as error:
        raise Prod9Error(
            f"the export records a {kind.__name__} that this version does not know; train again."
        ) from error


def tokenizer_beside(transformer: Path, recorded: Mapping[str, Any]) -> Path:
    """Return the path of a transformer's tokenizer.

    Raises:
        Prod9Error: it is neither where the configuration says nor beside the transformer.
    """
    named = Path(str(recorded.get("autoencoder_path", "autoencoder.pt")))
    folder = transformer.parent
    for place in (named, folder / named.name, folder.parent / named.name):
        if place.is_file():
            return place
    raise Prod9Error(
        f"the tokenizer of {transformer} is not at {named}; say where it is with tokenizer=PATH."
    )
