"""``prod9 view``: volumes in the browser."""

import os
import signal
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer


def view(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...")],
    port: Annotated[int, typer.Option(min=0, max=65535)] = 0,
    browser: bool = True,
) -> None:
    """Show volumes side by side in the browser; only this machine can see them. Ctrl-C ends it.

    Args:
        paths: NIfTI files (.nii, .nii.gz), and folders of them.
        port: Port of this machine; 0 takes a free one.
        browser: Open the page in the browser.
    """
    from prod9.report.server import VolumeServer
    from prod9.report.viewed_files import find_volumes

    with VolumeServer(find_volumes(paths), port) as server:
        count = len(server.volumes)
        typer.echo(f"{count} volume{'s' if count != 1 else ''} at {server.url} (Ctrl-C ends it)")
        # Without a screen, the standard library would start a browser inside the terminal.
        if browser and _has_screen():
            webbrowser.open(server.url)
        # Here Ctrl-C is how one stops, not an interruption.
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("stopped.")
        finally:
            signal.signal(signal.SIGINT, previous)


def _has_screen() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
