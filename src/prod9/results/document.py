"""Write ``docs/metrics.md``: every field of ``metrics.json``, from the models.

``python -m prod9.results.document > docs/metrics.md``; with ``--check FILE``, compare instead.
"""

import sys
from pathlib import Path
from types import NoneType
from typing import get_args, get_origin

from pydantic import BaseModel

from prod9.results.schema import Evaluation

_HEAD = """# metrics.json

What `prod9 evaluate`, `test` of both stages and the demonstrations write. Generated from the models
in `prod9/results/`; `schema_version` rises when a field changes its meaning, from the first
release on. `null`: not measured; `warnings` say why. Numbers that are not finite are the strings
`"Infinity"` and `"NaN"`.
"""


def _models(annotation: object) -> list[type[BaseModel]]:
    """Return the models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _kind(annotation: object) -> str:
    """Return the type as a reader of JSON calls it."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if annotation is NoneType:
        return "null"
    if isinstance(annotation, type) and annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is list:
        return f"list of {_kind(args[0])}"
    if origin is dict:
        return f"{_kind(args[1])} by name"
    if origin is tuple:
        return f"{len(args)} numbers"
    if str(annotation).startswith("typing.Literal"):
        return " or ".join(f"`{value}`" for value in args)
    if args:
        return " or ".join(_kind(part) for part in args)
    return "anything"


def document() -> str:
    """Return the page."""
    parts = [_HEAD]
    todo: list[type[BaseModel]] = [Evaluation]
    seen: set[type[BaseModel]] = set()
    while todo:
        model = todo.pop(0)
        if model in seen:
            continue
        seen.add(model)
        rows = [f"## {model.__name__}", "", (model.__doc__ or "").split("\n")[0], ""]
        rows += ["| field | type | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            kind = _kind(field.annotation).replace("|", "\\|")
            rows.append(f"| `{name}` | {kind} | {field.description or ''} |")
            todo += _models(field.annotation)
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Print the page, or compare it with a file."""
    if arguments[:1] == ["--check"]:
        same = Path(arguments[1]).read_text(encoding="utf-8") == document()
        if not same:
            print(f"{arguments[1]} is out of date: make docs", file=sys.stderr)
        return 0 if same else 1
    print(document(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
