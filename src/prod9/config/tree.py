"""YAML text to plain values, each with the place it came from.

The subset of YAML that a configuration needs: no tags, no anchors, no key twice; scalars as in
YAML 1.2 (``1e-4`` is a number, ``no`` is text); ``${VAR}`` and ``${VAR:default}`` in scalars.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import yaml

from prod9.errors import Prod9Error

Keys = tuple[str, ...]
"""Where a value sits: ``("data", "batch_size")``."""

_INT = re.compile(r"[-+]?[0-9]{1,4000}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
# `$${` is a literal `${`; a bare `${` that is neither form is a mistake.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::([^{}]*))?\})?")


@dataclass(frozen=True)
class Place:
    """A line of a file, or the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


COMMAND_LINE = Place("command line")


@dataclass(frozen=True)
class Tree:
    """Nested values, and the place of each key."""

    values: dict[str, Any]
    places: dict[Keys, Place]

    def place(self, keys: Keys) -> Place | None:
        """Return the place of ``keys``, or of the nearest section around it."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.places:
                return self.places[keys[:end]]
        return None


def scalar(text: str) -> object:
    """Return what an unquoted YAML scalar means: None, bool, int, float, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def merge(base: Tree, over: Tree) -> Tree:
    """Return ``base`` changed by ``over``: mappings key by key, all else (lists too) replaced."""
    replaced = set(_replaced(base.values, over.values, ()))
    places = {
        keys: place
        for keys, place in base.places.items()
        if not any(keys[:end] in replaced for end in range(1, len(keys) + 1))
    }
    return Tree(_merged(base.values, over.values), places | over.places)


def parse(text: str, source: str, *, lines: bool = True) -> tuple[Any, dict[Keys, Place]]:
    """Read one YAML document; a text without content gives None.

    Raises:
        Prod9Error: it is not valid, uses a tag, an anchor, a key twice, or an unset variable.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reader = _Builder(source, lines)
        return (None if node is None else reader.build(node, ())), reader.places
    except _Refused as error:
        raise Prod9Error(f"{Place(source, error.line if lines else None)}: {error}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(source, mark.line + 1 if mark and lines else None)
        detail = error.problem or error.context or "unreadable"
        if detail.startswith("but "):
            detail = f"{error.context}, {detail}"
        raise Prod9Error(f"{place}: not valid YAML: {detail}.") from error
    except yaml.YAMLError as error:  # a character that no YAML may hold
        detail = str(error).splitlines()[0]
        raise Prod9Error(f"{source}: not valid YAML: {detail}.") from error
    except RecursionError as error:
        raise Prod9Error(f"{source}: not valid YAML: nested too deeply.") from error


class _Refused(Exception):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Stops at a tag or an anchor before anything is built from it."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if tag := getattr(event, "tag", None):
            name = str(tag).replace("tag:yaml.org,2002:", "!!")
            raise _Refused(f"the tag {name} is not allowed; write a plain value.", line)
        if getattr(event, "anchor", None):  # an alias has its anchor's name
            raise _Refused("anchors and aliases (& and *) are not allowed; use extends.", line)
        return super().compose_node(parent, index)


class _Builder:
    """Turns nodes into values and notes the line of each key."""

    def __init__(self, source: str, lines: bool) -> None:
        self.source = source
        self.lines = lines
        self.places: dict[Keys, Place] = {}

    def build(self, node: yaml.Node, keys: Keys) -> object:
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node, keys))
        if isinstance(node, yaml.SequenceNode):
            # What is inside a list is found by the line of the list.
            return [_Builder(self.source, self.lines).build(item, ()) for item in node.value]
        text = _expand(str(node.value), _line(node))
        # Escapes can write what no file's name and no terminal takes.
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise _Refused("a text has a character that is none (NUL or a surrogate).", _line(node))
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return scalar(text) if plain else text

    def _items(self, node: yaml.MappingNode, keys: Keys) -> Iterator[tuple[str, object]]:
        seen: dict[str, int] = {}
        for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                raise _Refused("a key must be a plain word.", line)
            name = str(key.value)
            if name in seen:
                dotted = ".".join((*keys, name))
                raise _Refused(f"{dotted} is given twice (first in line {seen[name]}).", line)
            seen[name] = line
            self.places[(*keys, name)] = Place(self.source, line if self.lines else None)
            yield name, self.build(value, (*keys, name))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1 if node.start_mark else 1


def _expand(text: str, line: int) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if match[0] == "$${":
            return "${"
        if name is None:
            _fail(f"{text!r} has a ${{ that is neither ${{VAR}} nor ${{VAR:default}}.")
        # An empty variable counts as unset, as containers often pass one through.
        found = os.environ.get(name) or default
        if found is None:
            _fail(
                f"the environment variable {name} is not set; set it, or give a default: "
                f"${{{name}:default}}."
            )
        return found

    def _fail(message: str) -> NoReturn:
        raise _Refused(message, line)

    return _REFERENCE.sub(value, text)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = _merged(old, value)
        result[key] = value
    return result


def _replaced(base: dict[str, Any], over: dict[str, Any], keys: Keys) -> Iterator[Keys]:
    for key, value in over.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            yield from _replaced(old, value, (*keys, key))
        else:
            yield (*keys, key)
