"""How every console script ends: one sentence and an exit code."""

import sys
from collections.abc import Callable

import torch
import typer
from rich.console import Console

from prod9.errors import UserError


def guarded(app: typer.Typer) -> Callable[[], None]:
    """Return the entry point of ``app``.

    Exit codes: 0 done; 2 the user's mistake, one sentence on stderr, no traceback; 130 Ctrl-C.
    Anything else is a bug of ours and keeps its traceback.
    """

    def run() -> None:
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        try:
            app()
        except UserError as error:
            console.print(f"error: {error}", style="red")
            sys.exit(2)
        except torch.OutOfMemoryError:
            console.print(
                "error: the GPU has too little memory; lower data.batch_size, or "
                "sliding_window.roi_size for infer.",
                style="red",
            )
            sys.exit(2)
        except KeyboardInterrupt:
            console.print("interrupted; a training run continues with --resume.", style="yellow")
            sys.exit(130)

    return run


def new_app(help_text: str) -> typer.Typer:
    """Return a Typer application with prod9's conventions."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
