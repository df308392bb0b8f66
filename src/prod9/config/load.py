"""YAML file + ``extends`` + overrides -> a validated configuration, and back to YAML."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from prod9.config import Stage1Config, Stage2Config
from prod9.config.find import is_file, resolve_config, shipped_path
from prod9.config.problems import explain
from prod9.config.schema import Model, chosen, models
from prod9.config.tree import COMMAND_LINE, Place, Tree, merge, parse, scalar
from prod9.errors import Prod9Error

__all__ = ["dump", "load", "load_stage1", "load_stage2", "resolve_config"]

Config = TypeVar("Config", bound=BaseModel)

_OVERRIDE = re.compile(r"([A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*){0,20})=(.+)", re.ASCII | re.DOTALL)

_MOST_BYTES = 1 << 20
_MOST_FILES = 20


def load_stage1(path: Path, overrides: Sequence[str] = ()) -> Stage1Config:
    """Read a Stage 1 configuration; see :func:`load`."""
    return load(path, Stage1Config, overrides)


def load_stage2(path: Path, overrides: Sequence[str] = ()) -> Stage2Config:
    """Read a Stage 2 configuration; see :func:`load`."""
    return load(path, Stage2Config, overrides)


def load_either(path: Path, overrides: Sequence[str]) -> Stage1Config | Stage2Config:
    """Read a configuration of either stage; raises what the loader of its stage raises."""
    try:
        return load_stage1(path, overrides)
    except Prod9Error as error:
        if "is a Stage 2 configuration" not in str(error):
            raise
    return load_stage2(path, overrides)


def load(path: Path, model: type[Config], overrides: Sequence[str] = ()) -> Config:
    """Read ``path`` (or the packaged file it names), apply ``overrides`` and validate.

    Args:
        path: a YAML file; see :func:`prod9.config.find.resolve_config`.
        model: the configuration it must be.
        overrides: ``data.batch_size=2`` and the like; the last of equal keys counts.

    Raises:
        Prod9Error: all that is wrong, each with file and line or "command line".
    """
    path = resolve_config(path)
    tree = _read(path, model, ())
    _check_stage(tree, model, path)
    tree = _overlay(tree, _command_line(overrides), model)
    try:
        # strict: text is no number and true is no 1, as each is more likely a slip.
        return model.model_validate(_prepared(tree.values, model), strict=True)
    except ValidationError as error:
        raise explain(error, tree, model, str(path)) from None


def dump(config: BaseModel) -> str:
    """Return every key of ``config`` as YAML that loads back to an equal configuration."""
    return yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True
    )


def _read(path: Path, model: Model, chain: tuple[Path, ...]) -> Tree:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise Prod9Error(f"{path} is larger than any configuration; choose another file.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Prod9Error(f"{path}: not a text file in UTF-8.") from error
    except OSError as error:
        raise Prod9Error(f"cannot read {path}: {error.strerror or error}.") from error
    values, places = parse(text, str(path))
    if values is None:
        raise Prod9Error(f"{path} is empty; a configuration needs at least extends: base.yaml.")
    if not isinstance(values, dict):
        raise Prod9Error(f"{path} is not a mapping of keys to values (key: value on each line).")
    tree = Tree(values, places)
    if "extends" not in tree.values:
        return tree
    place, name = places.pop(("extends",)), tree.values.pop("extends")
    base = _base(path, name, place)
    chain = (*chain, path.resolve())
    if len(chain) > _MOST_FILES:
        raise Prod9Error(f"{place}: more than {_MOST_FILES} files extend one another; join some.")
    if base.resolve() in chain:
        names = " -> ".join(p.name for p in (*chain, base))
        raise Prod9Error(f"{place}: extends goes round in a circle: {names}.")
    return _overlay(_read(base, model, chain), tree, model)


def _base(path: Path, name: object, place: Place) -> Path:
    if not isinstance(name, str):
        raise Prod9Error(f"{place}: extends must name one YAML file, relative to this one.")
    base = path.parent / name
    if is_file(base):
        return base
    if found := shipped_path(Path(name)):
        return found
    raise Prod9Error(f"{place}: extends names {base}, which does not exist.")


def _command_line(overrides: Sequence[str]) -> Tree:
    tree = Tree({}, {})
    for override in overrides:
        match = _OVERRIDE.fullmatch(override)
        if match is None:
            raise Prod9Error(
                f"{COMMAND_LINE}: {override!r} is not an override; write key=value, such as "
                "data.batch_size=2 (key=null for nothing)."
            )
        keys = tuple(match[1].split("."))
        if keys[0] == "extends":
            raise Prod9Error(f"{COMMAND_LINE}: extends cannot be overridden; choose --config.")
        value, inner = parse(match[2], f"{COMMAND_LINE}: {override!r}", lines=False)
        places = {(*keys, *rest): COMMAND_LINE for rest in inner}
        places |= {keys[:end]: COMMAND_LINE for end in range(1, len(keys) + 1)}
        for key in reversed(keys):
            value = {key: value}
        tree = merge(tree, Tree(value, places))
    return tree


def _overlay(base: Tree, over: Tree, model: Model) -> Tree:
    """Merge; where ``over`` chooses another member of a union, drop what only the old one has.

    So ``data.dataset_name=organmnist3d`` over a BraTS file leaves ``data_dir`` behind, while a
    ``data_dir`` given together with the new name stays, to be reported.
    """
    values, places = dict(base.values), base.places
    for name, field in model.model_fields.items():
        section, change = values.get(name), over.values.get(name)
        if not isinstance(field.discriminator, str) or not isinstance(section, dict):
            continue
        new = chosen(field, change)
        if new is None:
            continue
        foreign = {key for other in models(field.annotation) for key in other.model_fields}
        foreign -= set(new.model_fields)
        values[name] = {key: value for key, value in section.items() if key not in foreign}
        left = {(name, key) for key in foreign}
        places = {keys: place for keys, place in places.items() if keys[:2] not in left}
    return merge(Tree(values, places), over)


def _check_stage(tree: Tree, model: Model, path: Path) -> None:
    """Say so when a file of one stage is given to the other's command."""
    stages: dict[str, tuple[Model, str, str]] = {
        "autoencoder_export_path": (Stage1Config, "Stage 1", "prod9-train-autoencoder"),
        "autoencoder_path": (Stage2Config, "Stage 2", "prod9-train-transformer"),
    }
    given = [stage for key, stage in stages.items() if key in tree.values]
    if len(given) == 1 and model in (Stage1Config, Stage2Config) and given[0][0] is not model:
        _, stage, command = given[0]
        raise Prod9Error(f"{path} is a {stage} configuration; run it with {command}.")


def _prepared(value: Any, model: Model | None, annotation: object = None) -> Any:
    """Return the values in the types that strict validation asks for: tuples and paths."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and _is_path(annotation):
        return Path(value)
    if not isinstance(value, Mapping):
        return value
    known = model.model_fields if model else {}
    return {
        key: _prepared(item, chosen(known[key], item), known[key].annotation)
        if key in known
        else item
        for key, item in value.items()
    }


def _is_path(annotation: object) -> bool:
    return annotation is Path or Path in getattr(annotation, "__args__", ())


class _Dumper(yaml.SafeDumper):
    """Lists on one line, no anchors, quotes around every text that would not read as text."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_list(dumper: yaml.SafeDumper, value: list[object]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # Unusual line ends survive in double quotes alone, where they are escaped.
    style = None if isinstance(scalar(value), str) and value.isprintable() else '"'
    text = value.replace("${", "$${")
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)
