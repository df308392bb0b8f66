"""Write the tables of ``docs/configuration.md``: every key, from the pydantic models.

``python tools/config_page.py FILE`` writes what follows the marker; ``--check FILE`` compares it.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prod9.config import Stage1Config, Stage2Config

MARKER = "<!-- The tables are written by tools/config_page.py; do not edit them. -->\n"
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
Schema = dict[str, Any]


def tables() -> str:
    """Return a table of each section; sections that both stages have come first."""
    found: dict[str, tuple[str, list[str]]] = {}
    run: Schema = {}
    for stage, config in (("Stage 1", Stage1Config), ("Stage 2", Stage2Config)):
        schema = config.model_json_schema()
        keys = schema["properties"].items()
        run |= {key: value for key, value in keys if "type" in value or "anyOf" in value}
        for name, field in schema["properties"].items():
            for reference in field.get("oneOf", [field]):
                if "$ref" in reference:
                    section = _resolved(reference, schema)
                    of = f" of {section['title']}" if "oneOf" in field else ""
                    table = _table(dict(_keys(section, f"{name}.", schema)))
                    text = f"{section['description']}\n\n{table}".replace("``", "`")
                    stages = found.setdefault(f"`{name}`{of}\n{text}", (text, []))[1]
                    stages.append(stage)
    parts = ["## The run\n", _table(run)]
    parts.append("`autoencoder_export_path` belongs to Stage 1, `autoencoder_path` to Stage 2.\n")
    for key, (text, stages) in sorted(found.items(), key=lambda item: len(item[1][1]) == 1):
        where = "both stages" if len(stages) == 2 else stages[0]
        parts.append(f"## {key.splitlines()[0]} ({where})\n\n{text}")
    return "\n".join(parts)


def _resolved(field: Schema, schema: Schema) -> Schema:
    return schema["$defs"][field["$ref"].split("/")[-1]] if "$ref" in field else field


def _keys(section: Schema, prefix: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield every key below ``section`` that is no section itself."""
    for name, field in section["properties"].items():
        # A section that may be left out is a choice between it and null.
        chosen = next((each for each in field.get("anyOf", ()) if "$ref" in each), field)
        inner = _resolved(chosen, schema)
        if "properties" in inner:
            yield from _keys(inner, f"{prefix}{name}.", schema)
        else:
            yield prefix + name, field


def _table(rows: Schema) -> str:
    lines = ["| Key | Type | Default | Description |", "|---|---|---|---|"]
    for key, field in rows.items():
        default = f"`{_written(field['default'])}`" if "default" in field else "required"
        cells = f"`{key}`", _kind(field), default, " ".join(field["description"].split())
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _kind(field: Schema) -> str:
    """Return ``whole number (at least 1)``, ``list of 3: number``, ``one of x, y``..."""
    if "const" in field:
        return str(field["const"])
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    if "anyOf" in field:
        return " or ".join(map(_kind, field["anyOf"]))
    if field["type"] == "array" and "prefixItems" in field:
        return f"list of {len(field['prefixItems'])}: {_kind(field['prefixItems'][0])}"
    if field["type"] == "array":
        return f"list{' (not empty)' if 'minItems' in field else ''}: {_kind(field['items'])}"
    if field["type"] == "object":
        return f"name: {_kind(field['additionalProperties'])}"
    kind = "path" if field.get("format") == "path" else _KINDS[field["type"]]
    bounds = [f"{words} {field[key]}" for key, words in _BOUNDS.items() if key in field]
    return f"{kind} ({' and '.join(bounds)})" if bounds else kind


def _written(value: object) -> str:
    """Return a default as it would be written in YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    page = Path(sys.argv[-1])
    head, marker, old = page.read_text(encoding="utf-8").partition(MARKER)
    new = "\n" + tables()
    if sys.argv[1] != "--check":
        page.write_text(head + MARKER + new, encoding="utf-8")
    elif not marker or old != new:
        sys.exit(f"{page} is out of date: make pages")
