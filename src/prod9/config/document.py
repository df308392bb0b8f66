"""The manual of all keys, written from the pydantic models.

``python -m prod9.config.document`` prints it; ``--check FILE`` compares it with a file.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

from prod9.config import Stage1Config, Stage2Config
from prod9.config.schema import Model, fields, kind_of, limits, models

_BOTH = ["Stage 1", "Stage 2"]
_HEAD = """\
# Configuration

<!-- Written by `python -m prod9.config.document`; do not edit. -->

One YAML file describes one run. Defaults live in prod9, so a file states only what differs.

- **`extends: base.yaml`** (relative to the file) starts from another file. Sections are merged key
  by key; everything else, lists too, is replaced.
- **Environment.** `${VAR}` and `${VAR:default}` are replaced inside values; an empty variable
  counts as unset, and `$${` stands for a literal `${`. An unquoted value is read as YAML again:
  `${BS:4}` is a number.
- **Overrides** follow the options:
  `... train --config FILE data.batch_size=2 trainer.max_epochs=1`. A list is written
  `'model.autoencoder.levels=[8,8,8]'`, nothing is `key=null`. Changing `data.dataset_name` to the
  other kind of data set (here or in a file that extends another) leaves behind the keys that only
  the old kind knows.
- **`--print-config`** prints the configuration with every key after all of this; the output is a
  configuration itself.
- **Mistakes** are reported together, each with file and line (or "command line"): unknown keys
  with the nearest known one, wrong types, values out of range. There is no silent conversion:
  `"2"` is text and `true` is not 1. Tags, anchors, aliases and keys given twice are refused.
- **Shipped files.** `--config src/prod9/configs/maskgit/...`, `maskgit/...` and `demo/...` mean the
  packaged files when no such file exists in the current folder. Paths inside a configuration are
  relative to the current folder.
- **Codebook size** is the product of `model.autoencoder.levels`: `[8, 8, 8]` is 512, `[6, 6, 6, 5]`
  is 1,080 and `[8, 8, 6, 5]` is 8 * 8 * 6 * 5 = 1,920 codes (older tables say 2400, a slip).
"""


def document() -> str:
    """Return the manual as Markdown."""
    parts = [_HEAD, *_top(), *_sections()]
    return "\n".join(parts)


def main(arguments: Sequence[str]) -> int:
    """Print the manual, or compare it with ``--check FILE``; return the exit code."""
    if not arguments:
        sys.stdout.write(document())
        return 0
    if len(arguments) != 2 or arguments[0] != "--check":
        sys.stderr.write("usage: python -m prod9.config.document [--check FILE]\n")
        return 2
    path = Path(arguments[1])
    if path.is_file() and path.read_text(encoding="utf-8") == document():
        return 0
    sys.stderr.write(f"{path} is out of date; run: python -m prod9.config.document > {path}\n")
    return 1


def _top() -> Iterator[str]:
    stages = [_plain(Stage1Config), _plain(Stage2Config)]
    yield "## The run\n"
    yield _table({name: field for stage in stages for name, field in stage.items()})
    only = [name for name in {**stages[0], **stages[1]} if not all(name in s for s in stages)]
    yield f"`{only[0]}` belongs to Stage 1, `{only[1]}` to Stage 2.\n"


def _plain(model: Model) -> dict[str, FieldInfo]:
    return {k: field for k, field in model.model_fields.items() if not models(field.annotation)}


def _sections() -> Iterator[str]:
    owners: dict[tuple[str, Model], list[str]] = {}
    for stage, label in ((Stage1Config, "Stage 1"), (Stage2Config, "Stage 2")):
        for name, field in stage.model_fields.items():
            for section in models(field.annotation):
                owners.setdefault((name, section), []).append(label)
    for (name, section), labels in sorted(owners.items(), key=lambda item: item[1] != _BOTH):
        where = "both stages" if labels == _BOTH else labels[0]
        # The members of a union share name and stages: the heading must tell them apart.
        alone = sum((n, stages) == (name, labels) for (n, _), stages in owners.items()) == 1
        about = (section.__doc__ or "").strip()
        yield f"## `{name}` ({where})\n" if alone else f"## `{name}` ({where}): {about[:-1]}\n"
        if alone:
            yield f"{about}\n"
        yield _table(dict(fields(section, f"{name}.")), _discriminators(name))


def _discriminators(name: str) -> set[str]:
    """Return the keys that choose a member of the union ``name``; a file must give them."""
    field = Stage1Config.model_fields.get(name)
    return {f"{name}.{field.discriminator}"} if field and field.discriminator else set()


def _table(rows: dict[str, FieldInfo], required: Collection[str] = ()) -> str:
    lines = ["| Key | Type | Default | Description |", "|---|---|---|---|"]
    for key, field in rows.items():
        bounds = limits(field)
        of = f"{kind_of(field)}, {bounds}" if bounds else kind_of(field)
        needed = field.is_required() or key in required
        default = "required" if needed else f"`{_written(field.default)}`"
        cells = (f"`{key}`", of, default, field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _written(value: object) -> str:
    """Return a default as it would be written in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
