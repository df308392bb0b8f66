"""How every console script ends: one sentence and an exit code."""

import errno
import signal
import sys
import threading
from collections.abc import Callable

import typer
from rich.console import Console

from prod9.errors import Prod9Error
from prod9.planning.out_of_memory import sentence, where
from prod9.runtime.allocator import keep_freed_memory
from prod9.runtime.distributed import is_main
from prod9.runtime.signals import STOPPING, Stopped, requeue, stop_now
from prod9.training.failures import LOST, is_loss, of_fault, of_loss

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MENDABLE = {*_FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE}


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    """Say nothing of a disk that is full: TensorBoard's thread hands it on to the run."""
    if getattr(args.exc_value, "errno", None) not in _MENDABLE:
        threading.__excepthook__(args)


def _of_file(error: OSError) -> str:
    """Return what to say of a file that cannot be read or written: only a full disk tells which."""
    file, reason = error.filename or "a file", error.strerror
    if error.errno in _FULL:
        return f"cannot write {file}: {reason}; free some space or choose another folder."
    return (
        f"cannot use {file}: {reason}; see who may read and write it, and whether its disk is well."
    )


def _farewell(stopped: Stopped) -> tuple[str, int]:
    """Return what to say, and the exit code."""
    if "train" not in sys.argv[1:2]:
        return stopped.saved or "interrupted; what was written is whole.", stopped.exit_code
    what = stopped.saved or "interrupted"
    # SLURM's warning that the time is up: somewhere else, later, there is more.
    if stopped.signum == getattr(signal, "SIGUSR1", 0) and requeue():
        return f"{what}; this job is back in the queue.", 0
    return f"{what}; training continues from its last checkpoint with --resume.", stopped.exit_code


def guarded(app: typer.Typer) -> Callable[[], None]:
    """Return the entry point of ``app``.

    Exit codes: 0 done, or back in SLURM's queue; 2 something the user can mend, one sentence on
    stderr, no traceback; 130 Ctrl-C; 143 SIGTERM or SIGUSR1. Anything else is a bug of ours and
    keeps its traceback.
    """

    def run() -> None:
        keep_freed_memory()
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        previous = {number: signal.signal(number, stop_now) for number in STOPPING}
        threading.excepthook = _thread_failed
        try:
            app()
        except Prod9Error as error:
            message = str(error)
        except (MemoryError, RuntimeError, OSError) as error:
            if (place := where(error)) is not None:
                message = f"{sentence(place)}."
            elif isinstance(error, OSError) and error.errno in _MENDABLE:
                message = _of_file(error)
            elif is_loss(error):
                if text := of_loss(error):
                    console.print(text, style="red")
                sys.exit(LOST)
            else:
                raise
        except Stopped as stopped:
            text, code = _farewell(stopped)
            if is_main():
                console.print(text, style="yellow")
            sys.exit(code)
        else:
            return
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            threading.excepthook = threading.__excepthook__
        if text := of_fault(message):
            console.print(text, style="red")
        sys.exit(2)

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
