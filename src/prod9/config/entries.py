"""YAML text to values, each with its dotted key and the line that it comes from.

The subset of YAML that a configuration needs: no tags, no anchors, no key twice; scalars as in
YAML 1.2 (``1e-4`` is a number, ``no`` is text); ``${VAR}`` and ``${VAR:default}`` in scalars.
"""

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import yaml

from prod9.errors import Prod9Error

Keys = tuple[str, ...]
"""Where a value sits: ``("data", "batch_size")``."""


class Entry(NamedTuple):
    """A value that is no section (an empty section is ``{}``), and where it was written."""

    value: Any
    place: str
    """``run.yaml:5`` or ``command line``."""


Entries = dict[Keys, Entry]
"""A configuration, flat: every value by its keys, in the order of files and lines."""

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


def parse(text: str, source: str, *, lines: bool = True) -> Entries:
    """Read one YAML document; one that is no mapping is a single entry with the keys ``()``.

    Raises:
        Prod9Error: it is not valid, uses a tag, an anchor, a key twice, or an unset variable.
    """

    def place(line: int | None) -> str:
        return f"{source}:{line}" if lines and line else source

    try:
        node = _Loader(text).get_single_node() or yaml.ScalarNode("", "")
        return {keys: Entry(value, place(line)) for keys, value, line in _leaves(node, (), 1)}
    except _Refused as error:
        raise Prod9Error(f"{place(error.line)}: {error}") from None
    except yaml.YAMLError as error:
        line, detail = None, str(error).splitlines()[0]  # a character that no YAML may hold
        if isinstance(error, yaml.MarkedYAMLError):
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else None
            detail = ", ".join(part for part in (error.context, error.problem) if part)
        raise Prod9Error(f"{place(line)}: not valid YAML: {detail}.") from error
    except RecursionError as error:
        raise Prod9Error(f"{source}: not valid YAML: nested too deeply.") from error


def scalar(text: str) -> object:
    """Return what an unquoted YAML scalar means: None, bool, int, float, or the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def merge(base: Entries, over: Entries) -> Entries:
    """Return ``base`` changed by ``over``: mappings key by key, all else (lists too) replaced."""
    sections = _sections(base)
    over = {k: e for k, e in over.items() if e.value != {} or k not in sections}
    gone = _sections(over)
    kept = {
        keys: entry
        for keys, entry in base.items()
        if keys not in gone and not any(keys[:end] in over for end in range(1, len(keys) + 1))
    }
    return kept | over


def nested(entries: Entries) -> dict[str, Any]:
    """Return the values as nested dictionaries."""
    values: dict[str, Any] = {}
    for (*sections, name), entry in entries.items():
        inner = values
        for key in sections:
            inner = inner.setdefault(key, {})
        inner[name] = entry.value
    return values


def _sections(entries: Entries) -> set[Keys]:
    """Return the keys of all sections that hold something."""
    return {keys[:end] for keys in entries for end in range(1, len(keys))}


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


def _leaves(node: yaml.Node, keys: Keys, line: int) -> Iterator[tuple[Keys, Any, int]]:
    """Yield keys, value and line of everything below ``node`` that is no section."""
    if not isinstance(node, yaml.MappingNode):
        yield keys, _value(node), line
        return
    seen: dict[str, int] = {}
    for key, value in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused("a key must be a plain word.", line)
        own = (*keys, str(key.value).replace("$${", "${"))  # as dump() writes it
        if own[-1] in seen:
            first = seen[own[-1]]
            raise _Refused(f"{'.'.join(own)} is given twice (first in line {first}).", line)
        seen[own[-1]] = line
        yield from _leaves(value, own, line)
    if not seen:
        yield keys, {}, line


def _value(node: yaml.Node) -> object:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    line = node.start_mark.line + 1 if node.start_mark else 1
    if isinstance(node, yaml.MappingNode):  # inside a list
        return nested({keys: Entry(value, "") for keys, value, _ in _leaves(node, (), line)})
    text = _expand(str(node.value), line)
    # Escapes can write what no file's name and no terminal takes.
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise _Refused("a text has a character that is none (NUL or a surrogate).", line)
    quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
    return text if quoted else scalar(text)


def _expand(text: str, line: int) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        if match[0] == "$${":
            return "${"
        if name is None:
            raise _Refused(
                f"{text!r} has a ${{ that is neither ${{VAR}} nor ${{VAR:default}}.", line
            )
        # An empty variable counts as unset, as containers often pass one through.
        found = os.environ.get(name) or default
        if found is None:
            raise _Refused(
                f"the environment variable {name} is not set; set it, or give a default: "
                f"${{{name}:default}}.",
                line,
            )
        return found

    return _REFERENCE.sub(value, text)
