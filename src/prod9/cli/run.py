"""How every console script ends: one sentence and an exit code."""

import errno
import signal
import sys
from collections.abc import Callable
from types import FrameType

import torch
import typer
from rich.console import Console

from prod9.build.memory import keep_freed_memory
from prod9.errors import UserError

_MENDABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


_NO_MEMORY = (
    "this machine has too little memory; give fewer or smaller volumes, or lower data.batch_size."
)


class _Interrupted(BaseException):
    """Ctrl-C. Not KeyboardInterrupt: Typer and Lightning turn that into exit codes of their own."""


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise _Interrupted


def guarded(app: typer.Typer) -> Callable[[], None]:
    """Return the entry point of ``app``.

    Exit codes: 0 done; 2 something the user can mend, one sentence on stderr, no traceback;
    130 Ctrl-C. Anything else is a bug of ours and keeps its traceback.
    """

    def run() -> None:
        keep_freed_memory()
        console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        previous = signal.signal(signal.SIGINT, _interrupt)
        try:
            app()
        except UserError as error:
            message = str(error)
        except torch.OutOfMemoryError:
            message = (
                "the GPU has too little memory; lower data.batch_size, or sliding_window.roi_size "
                "for infer."
            )
        except MemoryError:
            message = _NO_MEMORY
        except OSError as error:
            if error.errno not in _MENDABLE:
                raise
            message = (
                f"cannot write {error.filename or 'a file'}: {error.strerror}; free some space or "
                "choose another folder."
            )
        except RuntimeError as error:
            if "can't allocate memory" not in str(error):  # PyTorch has no class of its own for it
                raise
            message = _NO_MEMORY
        except _Interrupted:
            text = "interrupted; what was written is whole."
            if "train" in sys.argv[1:2]:
                text = "interrupted; training continues from its last checkpoint with --resume."
            console.print(text, style="yellow")
            sys.exit(130)
        else:
            return
        finally:
            signal.signal(signal.SIGINT, previous)
        console.print(f"error: {message}", style="red")
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
