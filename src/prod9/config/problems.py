"""pydantic's errors with what it does not know: file and line, and the nearest known key."""

import difflib
import json
import re
from typing import Any, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from prod9.config.base import Model, leaves, sections, tags
from prod9.config.entries import Entries, Keys, nested
from prod9.errors import Prod9Error
from prod9.registry import DATASETS


def explain(error: ValidationError, entries: Entries, model: Model, source: str) -> Prod9Error:
    """Return one error that lists every problem once, each with the place of its key."""
    values = nested(entries)
    found: dict[tuple[Keys, int | None], dict[str, ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        # The members of a union each complain about the same value: one sentence for all.
        found.setdefault(_locate(details, values), {})[details["msg"]] = details
    problems: list[tuple[int, str]] = []
    places = [entry.place for entry in entries.values()]
    for (keys, index), all_details in found.items():
        text = _sentence(keys, index, list(all_details.values()), model)
        line = _line(keys, text, entries)
        problems.append((line, f"{places[line] if line >= 0 else source}: {text}"))
    lines = [text for _, text in sorted(problems)]
    if len(lines) > 1:
        lines.insert(0, f"{source} has {len(lines)} problems:")
    return Prod9Error("\n  ".join(lines))


def _locate(details: ErrorDetails, values: Any) -> tuple[Keys, int | None]:
    """Return the keys of an error and the index into its list, if there is one.

    What pydantic's location has besides keys names a member of a union.
    """
    keys: list[str] = []
    for item in details["loc"]:
        if isinstance(values, dict) and item in values:
            keys.append(str(item))
            values = values[item]
        elif isinstance(values, list) and isinstance(item, int):
            return tuple(keys), item
    if details["type"] == "missing" and isinstance(values, dict):
        keys.append(str(details["loc"][-1]))
    if details["type"].startswith("union_tag"):
        keys.append("dataset_name")
    return tuple(keys), None


def _line(keys: Keys, text: str, entries: Entries) -> int:
    """Return the number of the entry at ``keys``, or the nearest to it; -1 where there is none."""
    # A section's complaint is shown at the first key that it names: ``scans.case_7`` or ``scans``.
    words = text.split()
    near = [key[:2] for key in entries if ".".join(key[:2]) in words]
    near += [(*keys, word) for word in re.findall(r"\w+", text)]
    near += [keys[:end] for end in range(len(keys), 0, -1)]
    found = (line for own in near for line, key in enumerate(entries) if key[: len(own)] == own)
    return next(found, -1)


def _sentence(keys: Keys, index: int | None, errors: list[ErrorDetails], model: Model) -> str:
    dotted = ".".join(keys) + ("" if index is None else f"[{index}]")
    kind, context, value = errors[0]["type"], errors[0].get("ctx", {}), errors[0]["input"]
    if kind == "extra_forbidden":
        return _unknown(keys, model)
    if kind == "union_tag_not_found":
        return f"{dotted} is missing; write one of {', '.join(DATASETS.names)}."
    if kind == "missing":
        described = (f.description or "" for key, _, f in leaves(model) if key == dotted)
        about = " ".join(next(described, "").split())
        return f"{dotted} is missing: {about}" if about else f"{dotted} is missing."
    if kind == "value_error":
        text = str(context["error"])
        text += "" if text.endswith((".", "?")) else "."
        if not dotted:
            return text
        return f"{dotted} {text}" if text.startswith("must ") else f"{dotted}: {text}"
    texts = [re.sub(r"^(Input|Tuple) | after validation.*", "", error["msg"]) for error in errors]
    message = " or ".join(texts)
    if kind == "union_tag_invalid":
        value, message = value["dataset_name"], f"should be one of {context['expected_tags']}"
    if kind in ("dict_type", "model_type"):
        message = "should be a section of keys"
    near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", message), n=1)
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return f"{dotted} {message}, not {shown}{f'; did you mean {near[0]}?' if near else '.'}"


def _unknown(keys: Keys, model: Model) -> str:
    dotted, name = ".".join(keys), keys[-1]
    annotations: list[object] = [model]
    for key in keys[:-1]:
        annotations = [inner for each in annotations for inner in _below(each, key)]
    members = [section for each in annotations for section in sections(each)]
    owners = [tag for m in members if name in m.model_fields for tag in tags(m, "dataset_name")]
    if owners:
        names = " or ".join(map(str, owners))
        return f"{dotted} is only known where dataset_name is {names}; remove it."
    known = list(dict.fromkeys(key for member in members for key in member.model_fields))
    near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1)
    # A right key in a wrong place has its own name elsewhere.
    near += [key for key, _, _ in leaves(model) if key.split(".")[-1] == name]
    hint = f"did you mean {near[0]}?" if near else f"the keys here are {', '.join(known)}."
    return f"{dotted} is not a known key; {hint}"


def _below(annotation: object, key: str) -> list[object]:
    """Return what may stand under ``key``, which is any text where sections have free names."""
    if get_origin(annotation) is dict:
        return [get_args(annotation)[1]]
    fields = [m.model_fields[key] for m in sections(annotation) if key in m.model_fields]
    return [field.annotation for field in fields]
