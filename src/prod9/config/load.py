"""YAML file + ``extends`` + overrides -> a validated configuration, and back to YAML."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from prod9.config import Stage1Config, Stage2Config
from prod9.config.base import Model, sections, tags
from prod9.config.entries import Entries, Entry, merge, nested, parse, scalar
from prod9.config.problems import explain
from prod9.config.shipped import is_file, resolve_config, shipped_path
from prod9.errors import Prod9Error

Config = TypeVar("Config", bound=BaseModel)

_COMMAND_LINE = "command line"
_OVERRIDE = re.compile(r"([A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*){0,20})=(.+)", re.ASCII | re.DOTALL)
_MOST_BYTES = 1 << 20
_MOST_FILES = 20
# The key that only one stage has.
_STAGES = {"autoencoder_export_path": Stage1Config, "autoencoder_path": Stage2Config}


def load_stage1(path: Path, overrides: Sequence[str] = ()) -> Stage1Config:
    """Read a Stage 1 configuration; see :func:`load`."""
    return load(path, Stage1Config, overrides)


def load_stage2(path: Path, overrides: Sequence[str] = ()) -> Stage2Config:
    """Read a Stage 2 configuration; see :func:`load`."""
    return load(path, Stage2Config, overrides)


def load_either(path: Path, overrides: Sequence[str]) -> Stage1Config | Stage2Config:
    """Read a configuration of either stage; raises what the loader of its stage raises."""
    path = resolve_config(path)
    return load(path, _stage_of(_read(path, Stage1Config, ())) or Stage1Config, overrides)


def load(
    path: Path,
    model: type[Config],
    overrides: Sequence[str] = (),
    most_bytes: int = _MOST_BYTES,
) -> Config:
    """Read ``path`` (or the packaged file it names), apply ``overrides`` and validate.

    Args:
        path: a YAML file; see :func:`prod9.config.shipped.resolve_config`.
        model: the configuration it must be.
        overrides: ``data.batch_size=2`` and the like; the last of equal keys counts.
        most_bytes: larger files are refused.

    Raises:
        Prod9Error: all that is wrong, each with file and line or "command line".
    """
    path = resolve_config(path)
    entries = _read(path, model, (), most_bytes)
    stage = _stage_of(entries)
    if model in _STAGES.values() and stage not in (None, model):
        command = "1 configuration; run it with prod9-train-autoencoder"
        if stage is Stage2Config:
            command = "2 configuration; run it with prod9-train-transformer"
        raise Prod9Error(f"{path} is a Stage {command}.")
    entries = _overlay(entries, _command_line(overrides), model)
    try:
        # strict: text is no number and true is no 1, as each is more likely a slip. JSON: lists
        # and text may become the tuples and paths of the model.
        return model.model_validate_json(json.dumps(nested(entries)), strict=True)
    except ValidationError as error:
        raise explain(error, entries, model, str(path)) from None


def validated(model: type[Config], values: Mapping[str, object], source: str) -> Config:
    """Return a section of plain values from elsewhere than a file.

    Raises:
        Prod9Error: all that is wrong, each with ``source``.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        entries = {(key,): Entry(value, source) for key, value in values.items()}
        raise explain(error, entries, model, source) from None


def overridden(config: Config, overrides: Sequence[str]) -> Config:
    """Return a section with other values, as on the command line: ``key=value``.

    Raises:
        Prod9Error: all that is wrong.
    """
    base = {
        (key,): Entry(value, "default") for key, value in config.model_dump(mode="json").items()
    }
    entries = _overlay(base, _command_line(overrides), type(config))
    try:
        return type(config).model_validate_json(json.dumps(nested(entries)), strict=True)
    except ValidationError as error:
        raise explain(error, entries, type(config), _COMMAND_LINE) from None


def dump(config: BaseModel) -> str:
    """Return every key of ``config`` as YAML that loads back to an equal configuration."""
    return yaml.dump(
        config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True
    )


def _read(
    path: Path, model: Model, chain: tuple[Path, ...], most_bytes: int = _MOST_BYTES
) -> Entries:
    """Return the entries of a file and of what it extends; ``chain`` are the files before it."""
    try:
        if path.stat().st_size > most_bytes:
            raise Prod9Error(f"{path} is larger than any configuration; choose another file.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Prod9Error(f"{path}: not a text file in UTF-8.") from error
    except OSError as error:
        raise Prod9Error(f"cannot read {path}: {error.strerror or error}.") from error
    entries = parse(text, str(path))
    if () in entries and entries[()].value in (None, {}):
        raise Prod9Error(f"{path} is empty; a configuration needs at least extends: base.yaml.")
    if () in entries:
        raise Prod9Error(f"{path} is not a mapping of keys to values (key: value on each line).")
    extends = entries.pop(("extends",), None)
    if extends is None:
        return entries
    base, chain = _base(path, extends), (*chain, path.resolve())
    if len(chain) > _MOST_FILES:
        raise Prod9Error(
            f"{extends.place}: more than {_MOST_FILES} files extend one another; join some."
        )
    if base.resolve() in chain:
        names = " -> ".join(p.name for p in (*chain, base))
        raise Prod9Error(f"{extends.place}: extends goes round in a circle: {names}.")
    return _overlay(_read(base, model, chain), entries, model)


def _base(path: Path, extends: Entry) -> Path:
    if not isinstance(extends.value, str):
        raise Prod9Error(f"{extends.place}: extends must name one YAML file, relative to this one.")
    base = path.parent / extends.value
    if is_file(base):
        return base
    if found := shipped_path(Path(extends.value)):
        return found
    raise Prod9Error(f"{extends.place}: extends names {base}, which does not exist.")


def _command_line(overrides: Sequence[str]) -> Entries:
    entries: Entries = {}
    for override in overrides:
        match = _OVERRIDE.fullmatch(override)
        if match is None:
            raise Prod9Error(
                f"{_COMMAND_LINE}: {override!r} is not an override; write key=value, such as "
                "data.batch_size=2 (key=null for nothing)."
            )
        keys = tuple(match[1].split("."))
        if keys[0] == "extends":
            raise Prod9Error(f"{_COMMAND_LINE}: extends cannot be overridden; choose --config.")
        found = parse(match[2], f"{_COMMAND_LINE}: {override!r}", lines=False)
        given = {(*keys, *inner): Entry(e.value, _COMMAND_LINE) for inner, e in found.items()}
        entries = merge(entries, given)
    return entries


def _overlay(base: Entries, over: Entries, model: Model) -> Entries:
    """Merge; where ``over`` chooses another member of a union, drop what only the old one has.

    So ``data.dataset_name=organmnist3d`` over a BraTS file leaves ``data_dir`` behind, while a
    ``data_dir`` given together with the new name stays, to be reported.
    """
    for name, field in model.model_fields.items():
        tag = over.get((name, str(field.discriminator)))
        members = sections(field.annotation)
        new = [m for m in members if tag and tag.value in tags(m, str(field.discriminator))]
        if new:
            known = {key for member in members for key in member.model_fields}
            foreign = {(name, key) for key in known - set(new[0].model_fields)}
            base = {keys: entry for keys, entry in base.items() if keys[:2] not in foreign}
    return merge(base, over)


def _stage_of(entries: Entries) -> type[Stage1Config | Stage2Config] | None:
    """Return the stage that a configuration is of; None where both or neither may be meant."""
    given = [stage for key, stage in _STAGES.items() if (key,) in entries]
    return given[0] if len(given) == 1 else None


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
