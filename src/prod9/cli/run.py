"""How every console script ends: one sentence and an exit code."""

import errno
import signal
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from prod9 import __version__
from prod9.errors import Prod9Error
from prod9.runtime import processes
from prod9.runtime.allocator import keep_freed_memory
from prod9.runtime.signals import STOPPING, Stopped, requeue, stop_now

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MENDABLE = {*_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}
Code = int | str | None


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    """Print nothing about a full disk: TensorBoard's thread raises the error in the run too."""
    if getattr(args.exc_value, "errno", None) not in _MENDABLE:
        threading.__excepthook__(args)


def _about_file(error: OSError) -> str:
    """Return a sentence about a file that cannot be read or written."""
    file, reason = error.filename or "a file", error.strerror
    if error.errno in _FULL:
        return f"cannot write {file}: {reason}; free some space or choose another folder."
    return f"cannot use {file}: {reason}; check its permissions and its disk."


def _about_stop(stopped: Stopped) -> tuple[Code, str]:
    if "train" not in sys.argv[1:2]:
        return stopped.exit_code, stopped.saved or "interrupted; what was written is whole."
    what = stopped.saved or "interrupted"
    # SLURM's warning before the time limit: the job goes on later, perhaps elsewhere.
    if stopped.signum == getattr(signal, "SIGUSR1", 0) and requeue():
        return 0, f"{what}; this job is back in the queue."
    return stopped.exit_code, f"{what}; training continues from its last checkpoint with --resume."


def _about_fault(error: Exception) -> tuple[Code, str] | None:
    """Return exit code and sentence for what the user can mend, or the loss of a process."""
    message = ""
    if isinstance(error, Prod9Error):
        message = str(error)
    else:
        from prod9.planning.out_of_memory import sentence, where  # starts slowly

        if (place := where(error)) is not None:
            message = f"{sentence(place)}."
        elif isinstance(error, OSError) and error.errno in _MENDABLE:
            message = _about_file(error)
        elif processes.is_loss(error):
            return processes.LOST, processes.loss_message(error)
    if not message:
        return None
    return 2, f"error: {message}" if processes.speaks_first() else ""


def _ignore_signals() -> None:
    """Ignore further signals: this process ends, and process 0 may signal the others to end."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def _ended(app: typer.Typer) -> tuple[Code, str, str]:
    """Run ``app``; return the exit code, the last words and their colour."""
    try:
        app()
    except SystemExit as ended:
        return ended.code, "", ""
    except Stopped as stopped:
        _ignore_signals()
        code, text = _about_stop(stopped)
        place = processes.placed()  # known before the processes have met
        return code, text if place is None or place.rank == 0 else "", "yellow"
    except (Prod9Error, MemoryError, RuntimeError, OSError) as error:
        _ignore_signals()
        found = _about_fault(error)
        if found is None:
            raise
        return *found, "red"
    return 0, "", ""


def guarded(app: typer.Typer) -> Callable[[], None]:
    """Return the entry point of ``app``.

    Exit codes: 0 done, or back in SLURM's queue; 2 a mistake that the user can mend, one sentence
    on stderr, no traceback; 130 Ctrl-C; 143 SIGTERM or SIGUSR1; 75 another process of the run has
    ended. Any other exception is a defect of prod9 and keeps its traceback.
    """

    def run() -> None:
        keep_freed_memory()
        previous = {number: signal.signal(number, stop_now) for number in STOPPING}
        threading.excepthook = _thread_failed
        code: Code = 1
        try:
            code, text, colour = _ended(app)
            if text:
                console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
                console.print(text, style=colour)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            threading.excepthook = threading.__excepthook__
        sys.exit(code)

    return run


class Grouped(TyperGroup):
    """Commands whose help lists them by their panel, in the plain style of all help pages."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel, in the order of their first commands."""
        panels: dict[str, list[tuple[str, str]]] = {}
        limit = formatter.width - 6 - max(map(len, self.commands))
        for name, each in self.commands.items():
            rows = panels.setdefault(getattr(each, "rich_help_panel", None) or "Commands", [])
            rows.append((name, each.get_short_help_str(limit)))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prod9 {__version__}")
        raise typer.Exit


def _only_version(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Say which prod9."),
    ] = False,
) -> None:
    """Take what may stand before a command."""


def new_app(help_text: str, *, script: bool = False) -> typer.Typer:
    """Return a Typer application with prod9's conventions; a ``script`` says its version."""
    app = typer.Typer(
        help=help_text,
        cls=Grouped,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    if script:
        app.callback()(_only_version)
    return app
