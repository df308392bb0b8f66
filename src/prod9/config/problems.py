"""pydantic's errors as sentences: file, line, key, what is wrong, what to write."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from prod9.config.schema import Model, chosen, fields, kind, limits, models, tags
from prod9.config.tree import COMMAND_LINE, Keys, Place, Tree
from prod9.errors import Prod9Error
from prod9.registry import Registry

_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}


def explain(error: ValidationError, tree: Tree, model: Model, source: str) -> Prod9Error:
    """Return one error that lists every problem once, each with the place of its key."""
    # The members of a union each complain about the same value: one sentence per key is enough.
    problems: list[tuple[Place, str]] = []
    told: set[tuple[Keys, int | None]] = set()
    for details in error.errors(include_url=False):
        keys, index = _locate(details, tree.values)
        if (keys, index) not in told or details["type"] == "value_error":
            told.add((keys, index))
            problems.append(_Problem(details, keys, index, tree, model, source).describe())
    lines = [f"{place}: {text}" for place, text in sorted(problems, key=_order)]
    if len(lines) == 1:
        return Prod9Error(lines[0])
    return Prod9Error("\n  ".join([f"{source} has {len(lines)} problems:", *lines]))


def _order(problem: tuple[Place, str]) -> tuple[bool, str, int]:
    place, _ = problem
    return place == COMMAND_LINE, place.source, place.line or 0


def _locate(details: ErrorDetails, values: Any) -> tuple[Keys, int | None]:
    """Follow pydantic's location through the values; what is not a key names a union member."""
    keys: list[str] = []
    for item in details["loc"]:
        if isinstance(values, dict) and item in values:
            keys.append(str(item))
            values = values[item]
        elif isinstance(values, (list, tuple)) and isinstance(item, int) and item < len(values):
            return tuple(keys), item
    last = details["loc"][-1:]
    if details["type"] == "missing" and isinstance(values, dict) and isinstance(last[0], str):
        keys.append(last[0])
    return tuple(keys), None


class _Problem:
    """One thing wrong at one key."""

    def __init__(
        self,
        details: ErrorDetails,
        keys: Keys,
        index: int | None,
        tree: Tree,
        model: Model,
        source: str,
    ) -> None:
        self.details = details
        self.keys = keys
        self.index = index
        self.tree = tree
        self.root = model
        self.source = source
        _, self.field = _lookup(model, keys, tree.values)

    def describe(self) -> tuple[Place, str]:
        wrong = self.details["type"]
        if wrong == "extra_forbidden":
            return self._unknown()
        if wrong == "missing" and self.keys not in self.tree.places:
            return self._missing()
        if wrong.startswith("union_tag"):
            return self._tag()
        if wrong == "value_error":
            return self._inconsistent()
        return self._mistyped(wrong)

    def _at(self, keys: Keys, text: str) -> tuple[Place, str]:
        return self.tree.place(keys) or Place(self.source), text

    def _unknown(self) -> tuple[Place, str]:
        dotted, name = ".".join(self.keys), self.keys[-1]
        section, own = _lookup(self.root, self.keys[:-1], self.tree.values)
        if own is not None and isinstance(own.discriminator, str):
            for other in models(own.annotation):
                if name in other.model_fields:
                    tag = own.discriminator
                    owners = " or ".join(map(str, tags(other, tag)))
                    return self._at(
                        self.keys, f"{dotted} is only known where {tag} is {owners}; remove it."
                    )
        known = list(section.model_fields) if section else []
        near = _nearest(name, known)
        if near is None:  # a right key in a wrong place
            near = next((k for k, _ in fields(self.root) if k.split(".")[-1] == name), None)
        hint = f"did you mean {near}?" if near else f"the keys here are {', '.join(known)}."
        return self._at(self.keys, f"{dotted} is not a known key; {hint}")

    def _missing(self) -> tuple[Place, str]:
        about = self.field.description if self.field and self.field.description else ""
        hint = f": {about[0].lower()}{about[1:]}" if about else "."
        return self._at(self.keys, f"{'.'.join(self.keys)} is missing{hint}")

    def _tag(self) -> tuple[Place, str]:
        field = self.field
        assert field is not None
        assert isinstance(field.discriminator, str)
        keys = (*self.keys, field.discriminator)
        known = [str(t) for m in models(field.annotation) for t in tags(m, field.discriminator)]
        choice = f"one of {', '.join(known)}"
        if keys not in self.tree.places:
            return self._at(keys, f"{'.'.join(keys)} is missing; write {choice}.")
        value = _value(self.tree.values, keys)
        return self._at(keys, f"{'.'.join(keys)} must be {choice}, not {_show(value, known)}")

    def _inconsistent(self) -> tuple[Place, str]:
        text = str(self.details["msg"]).removeprefix("Value error, ")
        if self.field and any(isinstance(item, Registry) for item in self.field.metadata):
            end = "" if text.endswith("?") else "."
            return self._at(self.keys, f"{'.'.join(self.keys)} {text}{end}")
        # A section's complaint is shown at the first key that it names.
        words = text.replace("(", " ").replace(",", " ").split()
        named = [(*self.keys, *word.split(".")) for word in words]
        shown = next((keys for keys in named if keys in self.tree.places), self.keys)
        # A key's own complaint begins with its name already; a section's does not.
        of_section = self.field is None or bool(models(self.field.annotation))
        around = ".".join(self.keys if of_section else self.keys[:-1])
        return self._at(shown, f"{around}: {text}." if around else f"{text}.")

    def _mistyped(self, wrong: str) -> tuple[Place, str]:
        dotted = ".".join(self.keys) or "the configuration"
        if self.index is not None:
            dotted += f"[{self.index}]"
        field, value = self.field, self.details["input"]
        if field is None:
            return self._at(self.keys, f"{dotted} must be a section of keys, not {_show(value)}")
        annotation = field.annotation
        if self.index is not None:
            annotation = _item(annotation)
        elif wrong == "missing":  # a list of a fixed length that is too short
            value = _value(self.tree.values, self.keys)
        wanted = limits(field) if wrong in _RANGE else ""
        wanted = f"be {wanted or kind(annotation, article=True)}"
        if wrong == "too_short":
            wanted = "not be empty"
        choices = kind(annotation)
        known = choices[7:].split(", ") if choices.startswith("one of ") else ()
        return self._at(self.keys, f"{dotted} must {wanted}, not {_show(value, known)}")


def _lookup(model: Model, keys: Keys, values: Any) -> tuple[Model | None, FieldInfo | None]:
    """Return the section at ``keys`` (None if it is no section) and the field it is held in."""
    section: Model | None = model
    field: FieldInfo | None = None
    for key in keys:
        field = section.model_fields.get(key) if section else None
        values = values.get(key) if isinstance(values, dict) else None
        section = chosen(field, values) if field else None
    return section, field


def _value(values: Any, keys: Keys) -> object:
    for key in keys:
        values = values[key]
    return values


def _item(annotation: object) -> object:
    """Return the type of a list's entries (also of a list or null)."""
    for part in (annotation, *get_args(annotation)):
        if getattr(part, "__origin__", None) is tuple:
            return get_args(part)[0]
    return annotation


def _nearest(name: str, known: Sequence[str]) -> str | None:
    simple = name.lower().replace("-", "_")
    return next(iter(difflib.get_close_matches(simple, known, n=1, cutoff=0.6)), None)


def _show(value: object, known: Iterable[str] = ()) -> str:
    """Return ``value`` as it would be written, shortened, with the nearest of ``known``."""
    if value is None or isinstance(value, bool):
        return f"{'null' if value is None else str(value).lower()}."
    if isinstance(value, dict):
        return "a section of keys."
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_show(item)[:-1] for item in value)
        return f"[{inner}]." if len(inner) < 60 else f"a list of {len(value)}."
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}."
    text = repr(str(value)) if not isinstance(value, (int, float)) else repr(value)
    if len(text) > 60:
        text = f"{text[:57]}..."
    near = _nearest(str(value), list(known)) if isinstance(value, str) else None
    return f"{text}; did you mean {near}?" if near else f"{text}."
