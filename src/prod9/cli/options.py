"""Options that several commands share. Nothing here imports PyTorch: ``--help`` must be quick."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from prod9.config import Stage2Config

MAX_SEED = 2**32 - 1
"""What NumPy, PyTorch and Lightning all take."""
BRATS = Path("maskgit/brats/stage2/base.yaml")
"""The shipped model of scans."""

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file; shipped ones are found by their name too."),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides such as data.batch_size=2."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Overrides the config's steps.")]
GuidanceOption = Annotated[
    float | None, typer.Option(min=1.0, help="Overrides the config's guidance_scale.")
]
TemperatureOption = Annotated[
    float | None, typer.Option(help="Overrides the config's temperature.")
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, max=MAX_SEED, help="Seed; the config's when left out.")
]


def configured(
    config: Path,
    overrides: list[str] | None,
    section: Literal["sampler", "completion"],
    *,
    seed: int | None,
    **given: float | None,
) -> "Stage2Config":
    """Read a configuration; ``given`` are keys of ``section`` from options, None for the others."""
    from prod9.config.load import load_stage2

    chosen = {f"{section}.{key}": value for key, value in given.items()} | {"seed": seed}
    options = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    return load_stage2(config, [*(overrides or ()), *options])


def print_table(rows: Iterable[tuple[str, str]], title: str | None = None) -> None:
    """Print pairs of what, and what was found, on stdout."""
    from rich.console import Console
    from rich.table import Column, Table

    found = Column("found", overflow="fold")
    table = Table("what", found, title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)
