"""``prod9 edit``: a label map changed on purpose."""

from pathlib import Path
from typing import Annotated

import typer

from prod9.cli.options import OverwriteOption


def edit(
    labels: Annotated[Path, typer.Argument()],
    output: Annotated[Path, typer.Option("--output", "-o")],
    grow: list[str] | None = None,
    move: list[str] | None = None,
    insert: list[str] | None = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Change a label map: grow, move or insert a label; then prod9 generate --mask makes its image.

    Args:
        labels: The label map.
        output: File for the result.
        grow: LABEL=+20% or LABEL=-10%: another volume; repeatable.
        move: LABEL=X,Y,Z: mm to the right, the front and the top; repeatable.
        insert: LABEL=sphere:X,Y,Z,R: a sphere of R mm, its middle in mm (RAS+); repeatable.
    """
    from prod9.inference.edit import edit_file, parse

    edit_file(labels, output, parse(grow or (), move or (), insert or ()), overwrite=overwrite)
    typer.echo(f"written to {output}")
