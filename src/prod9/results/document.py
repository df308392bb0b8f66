"""Write ``docs/metrics.md``: every field of ``metrics.json``, from the pydantic models.

``python -m prod9.results.document > docs/metrics.md``; with ``--check FILE``, compare instead.
"""

import sys
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from prod9.results.schema import Evaluation

_HEAD = """# metrics.json

Written by `prod9 evaluate`, by `test` of both stages and by the demonstrations. This page is
generated from the models in `prod9/results/`. `schema_version` changes when a field changes its
meaning, from the first release on. `null` means not measured; `warnings` give the reason. Numbers
that are not finite are the strings `"Infinity"` and `"NaN"`.
"""
_NAMES: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    NoneType: "null",
    Any: "anything",
}


def _kind(annotation: Any, models: list[type[BaseModel]]) -> str:
    """Return the type as a reader of JSON calls it; append the models inside it to ``models``."""
    if annotation in _NAMES:
        return _NAMES[annotation]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in args)
    if origin is None:
        models.append(annotation)
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    parts = [_kind(part, models) for part in args]
    texts = {
        list: f"list of {parts[0]}",
        dict: f"{parts[-1]} by name",
        tuple: f"{len(args)} numbers",
    }
    return texts.get(origin, " or ".join(parts))


def document() -> str:
    """Return the page as Markdown: a table a model, in the order of first use."""
    text = _HEAD
    models: list[type[BaseModel]] = [Evaluation]
    for model in models:  # grows while it is read
        if f"\n## {model.__name__}\n" in text:
            continue
        text += f"\n## {model.__name__}\n\n{model.__doc__}\n\n"
        text += "| field | type | meaning |\n|---|---|---|\n"
        for name, field in model.model_fields.items():
            text += f"| `{name}` | {_kind(field.annotation, models)} | {field.description} |\n"
    return text


if __name__ == "__main__":
    if sys.argv[1:2] != ["--check"]:
        print(document(), end="")
    elif Path(sys.argv[2]).read_text(encoding="utf-8") != document():
        sys.exit(f"{sys.argv[2]} is out of date: make pages")
