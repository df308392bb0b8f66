"""What the pydantic models say about a key, in words: for error messages and the manual."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prod9.registry import Registry

Model = type[BaseModel]

_KINDS: dict[object, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
    NoneType: "null",
}
_NO_ARTICLE = ("true or false", "text", "null")
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def models(annotation: object) -> list[Model]:
    """Return the sections an annotation allows: one, the members of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [model for part in get_args(annotation) for model in models(part)]
    return []


def tags(model: Model, discriminator: str) -> tuple[object, ...]:
    """Return the values of ``discriminator`` that choose ``model`` in its union."""
    return get_args(model.model_fields[discriminator].annotation)


def chosen(field: FieldInfo, value: object) -> Model | None:
    """Return the section that ``value`` is read as, or None where its discriminator is wrong."""
    allowed = models(field.annotation)
    if isinstance(field.discriminator, str):
        tag: Any = value.get(field.discriminator) if isinstance(value, Mapping) else None
        allowed = [model for model in allowed if tag in tags(model, str(field.discriminator))]
    return allowed[0] if len(allowed) == 1 else None


def fields(model: Model, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key that is not a section, dotted, in the order of the models."""
    for name, field in model.model_fields.items():
        inner = models(field.annotation)
        if not inner:
            yield prefix + name, field
        for section in inner:
            yield from fields(section, f"{prefix}{name}.")


def kind(annotation: object, *, article: bool = False) -> str:
    """Return ``whole number``, ``list of 3 numbers or null``, ``one of x, y``...

    With ``article``: ``a whole number``.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(args[0], article=article)
    a = "a " if article else ""
    if origin is Literal:
        return str(args[0]) if len(args) == 1 else "one of " + ", ".join(map(str, args))
    if models(annotation):
        return f"{a}section of keys"
    if origin in (Union, UnionType):
        return " or ".join(kind(part, article=article) for part in args)
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        inner = kind(args[0])
        fixed = args[0] is bool or get_origin(args[0]) is Literal
        item = inner if fixed else f"{inner}s"
        return f"{a}list of {count}{item}"
    name = _KINDS.get(annotation, str(annotation))
    return name if name in _NO_ARTICLE else a + name


def kind_of(field: FieldInfo, *, article: bool = False) -> str:
    """Return the :func:`kind` of a key; the names of its registry where it has one."""
    for item in field.metadata:
        if isinstance(item, Registry):
            return "one of " + ", ".join(item.names)
    return kind(field.annotation, article=article)


def limits(field: FieldInfo) -> str:
    """Return ``at least 0 and below 1``, or an empty string."""
    found = [
        f"{words} {getattr(item, name):g}"
        for item in field.metadata
        for name, words in _BOUNDS.items()
        if getattr(item, name, None) is not None
    ]
    if any(getattr(item, "min_length", None) for item in field.metadata):
        found.append("not empty")
    return " and ".join(found)
