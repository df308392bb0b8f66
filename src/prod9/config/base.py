"""What every section of a configuration shares, and how sections are found."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Model = type[BaseModel]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A frozen section; unknown keys are errors. What a key means is the string below it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def sections(annotation: object) -> list[Model]:
    """Return the sections an annotation allows: one, the members of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [model for part in get_args(annotation) for model in sections(part)]
    return []


def tags(model: Model, discriminator: str) -> tuple[object, ...]:
    """Return the values of ``discriminator`` that choose ``model`` in its union."""
    return get_args(model.model_fields[discriminator].annotation)


def leaves(model: Model, prefix: str = "") -> Iterator[tuple[str, Model, FieldInfo]]:
    """Yield every key that is no section: dotted name, the model it belongs to, the field."""
    for name, field in model.model_fields.items():
        inner = sections(field.annotation)
        if not inner:
            yield prefix + name, model, field
        for section in inner:
            yield from leaves(section, f"{prefix}{name}.")
