"""The console scripts: as processes of their own, or in this one, which need not start anew."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from prod9.cli import autoencoder, main, transformer

SCRIPTS: dict[str, Callable[[], None]] = {
    "prod9": main.run,
    "prod9-train-autoencoder": autoencoder.run,
    "prod9-train-transformer": transformer.run,
}


def in_a_process(
    command: str, *arguments: object, cwd: Path, env: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run what is installed, as a user would; return exit code, stdout and stderr."""
    done = subprocess.run(
        [Path(sys.executable).parent / command, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    return done.returncode, done.stdout, done.stderr


def in_this_one(
    command: str, *arguments: object, cwd: Path, env: Mapping[str, str]
) -> tuple[int, str, str]:
    """Run the function behind the script; return exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [command, *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            SCRIPTS[command]()
    code = left.value.code
    assert code is None or isinstance(code, int)
    return code or 0, out.getvalue(), err.getvalue()
