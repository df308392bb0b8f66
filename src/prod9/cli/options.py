"""One pattern for all commands, and the options that several share.

A command is a function; its docstring is its help: the text, and a line for each of its ``Args``.
Nothing here imports PyTorch: ``--help`` must be quick.
"""

import copy
import inspect
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer

Count = Annotated[int, typer.Option(min=1)]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1)]  # NumPy, PyTorch, Lightning take it
Output = Annotated[Path, typer.Option("--output", "-o")]
OptionalOutput = Annotated[Path | None, typer.Option("--output", "-o")]
NumSamples = Annotated[int, typer.Option("--num-samples", "-n", min=1)]
ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", help="YAML file; shipped ones are found by their name too."),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides such as data.batch_size=2."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Function = TypeVar("Function", bound=Callable[..., None])


def command(
    app: typer.Typer, name: str | None = None, panel: str | None = None
) -> Callable[[Function], Function]:
    """Make a function a command of ``app``, with the help that its docstring gives.

    ``panel`` is the heading in the application's help under which the command stands.
    """

    def add(function: Function) -> Function:
        text, _, arguments = inspect.cleandoc(function.__doc__ or "").partition("\n\nArgs:\n")
        parameters = {**inspect.signature(function).parameters}
        for parameter, about in re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", arguments, re.M):
            annotation = parameters[parameter].annotation
            # A switch that is on has --no-NAME, one that is off has NAME alone.
            off = annotation is bool and not parameters[parameter].default
            info: Any = typer.Option(*[f"--{parameter.replace('_', '-')}"] * off)
            if get_origin(annotation) is Annotated:
                annotation, info = get_args(annotation)
            info = copy.copy(info)
            info.help = " ".join(about.split())
            annotation = Annotated[annotation, info]
            parameters[parameter] = parameters[parameter].replace(annotation=annotation)
        function.__dict__["__signature__"] = inspect.Signature([*parameters.values()])
        return app.command(name, help=text, rich_help_panel=panel)(function)

    return add


def print_table(rows: Iterable[tuple[str, str]], title: str | None = None) -> None:
    """Print pairs of what, and what was found, on stdout."""
    from rich.console import Console
    from rich.table import Column, Table

    found = Column("found", overflow="fold")
    table = Table("what", found, title=title, title_justify="left", show_header=False)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True, markup=False).print(table)
