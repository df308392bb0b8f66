"""Processes that die where one says: before a file-system call, in the middle of a write, in time.

A server that has imported everything forks a child for each order: hundreds of kills cost hundreds
of forks, not of start-ups. The child leads a process group of its own, which is killed as a whole.
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from kill_snapshots import digests_below

SCRIPTS = {
    "prod9": "prod9.cli.main",
    "prod9-train-autoencoder": "prod9.cli.autoencoder",
    "prod9-train-transformer": "prod9.cli.transformer",
}
_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_LONGEST_S = 300


@dataclass(frozen=True)
class Kill:
    """Where a process ends.

    ``call``: SIGKILL to its group just before the call ``at`` (from 0) that opens a file for
    writing, renames, removes or makes something in the watched folder.
    ``byte``: the kernel's SIGXFSZ, whose default is to end the process, when a file is to grow
    beyond ``at`` bytes; the bytes before are written. Nothing is cleaned up either.
    ``moment``: SIGKILL to its group ``at`` seconds after the start.
    """

    kind: Literal["call", "byte", "moment"]
    at: float


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    code: int
    """Exit code; minus the signal's number where one ended it."""
    output: str
    calls: list[str]
    """The calls that were about to change the watched folder, in order."""
    committed: dict[str, list[str]]
    """Digests of what was renamed to a name (relative to the watched folder); not when killed."""
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether it ended by the kill, and not by itself before that."""
        return self.code in (-signal.SIGKILL, -signal.SIGXFSZ)


@dataclass(frozen=True)
class Work:
    """What a process does: a console script, or a function that takes a folder."""

    script: str
    """Name of the script, or ``module:function``."""
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


class Nursery:
    """The server, as its user sees it."""

    def __init__(self, *modules: str) -> None:
        paths = os.pathsep.join(path for path in sys.path if path)
        # One thread: a fork of a process with threads would wait for them for ever.
        alone = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            [sys.executable, __file__, *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **alone},
        )

    def run(self, work: Work, folder: Path, kill: Kill | None = None) -> Ending:
        """Do ``work`` in ``folder``; kill it there."""
        order = {"work": asdict(work), "folder": str(folder), "kill": kill and asdict(kill)}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        assert reply, "the nursery has ended"
        return Ending(**json.loads(reply))

    def close(self) -> None:
        """End the server."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


class KillBefore:
    """An audit hook: counts the calls that change a folder, and kills before one of them."""

    def __init__(self, folder: str, end: int | None, survey: bool, pipe: int) -> None:
        self.folder, self.end, self.survey, self.pipe = folder, end, survey, pipe
        self.count, self.busy = 0, False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or self.busy:
            return
        self.busy = True
        try:
            self._look(event, arguments)
        finally:
            self.busy = False

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        names = [a for a in arguments[:2] if isinstance(a, str | bytes | os.PathLike)]
        if event not in ("os.rename", "os.link"):
            names = names[:1]
        # Below an open folder (shutil.rmtree) names are relative to it: counted in any case.
        below = event in ("os.remove", "os.rmdir") and arguments[-1] != -1
        paths = [Path.cwd() / os.fsdecode(name) for name in names]
        if not below and not any(path.is_relative_to(self.folder) for path in paths):
            return
        if self.count == self.end:
            os.killpg(0, signal.SIGKILL)
        self.count += 1
        shown = [str(path).removeprefix(f"{self.folder}/") for path in paths]
        row: dict[str, Any] = {"call": " ".join([event, *shown])}
        if self.survey and event in ("os.rename", "os.link"):
            row["committed"] = {
                str(Path(shown[1]) / name): digest
                for name, digest in digests_below(paths[0], as_name=paths[1].name).items()
            }
        os.write(self.pipe, (json.dumps(row) + "\n").encode())


def _child(order: dict[str, Any], talk: int, rows: int) -> None:
    """Do the work of an order; never return."""
    code = 1
    try:
        work, folder, kill = order["work"], order["folder"], order["kill"]
        os.dup2(talk, 1)
        os.dup2(talk, 2)
        os.chdir(folder)
        os.environ.update(work["environment"])
        end = int(kill["at"]) if kill and kill["kind"] == "call" else None
        sys.addaudithook(KillBefore(folder, end, kill is None, rows))
        if kill and kill["kind"] == "byte":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(kill["at"]),) * 2)
        code = _work(work, Path(folder))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _work(work: dict[str, Any], folder: Path) -> int:
    if work["script"] not in SCRIPTS:
        module, _, function = work["script"].partition(":")
        getattr(importlib.import_module(module), function)(folder, *work["arguments"])
        return 0
    sys.argv = [work["script"], *work["arguments"]]
    try:
        importlib.import_module(SCRIPTS[work["script"]]).run()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 0
    return 0


def _obey(order: dict[str, Any]) -> Ending:
    """Fork a child for an order, listen to it, kill it when it is time."""
    ends = {name: os.pipe() for name in ("talk", "rows")}
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        _child(order, ends["talk"][1], ends["rows"][1])
    with suppress(OSError):  # the child says the same; whoever is first
        os.setpgid(child, child)
    heard = dict.fromkeys(ends, b"")
    for read, write in ends.values():
        os.close(write)
        os.set_blocking(read, False)
    kill = order["kill"]
    limit = kill["at"] if kill and kill["kind"] == "moment" else _LONGEST_S
    status = None
    while status is None:
        found, reported = os.waitpid(child, os.WNOHANG)
        status = reported if found else None
        for name, (read, _) in ends.items():
            heard[name] += _available(read)
        if status is None:
            if time.monotonic() - start >= limit:
                _kill_group(child)
            time.sleep(0.001)
    seconds = time.monotonic() - start
    _kill_group(child)  # whoever it left behind
    for read, _ in ends.values():
        os.close(read)
    rows = [json.loads(line) for line in heard["rows"].splitlines()]
    committed: dict[str, list[str]] = {}
    for row in rows:
        for name, digest in row.get("committed", {}).items():
            committed.setdefault(name, []).append(digest)
    return Ending(
        os.waitstatus_to_exitcode(status),
        heard["talk"].decode(errors="replace"),
        [row["call"] for row in rows],
        committed,
        seconds,
    )


def _available(read: int) -> bytes:
    data = b""
    with suppress(BlockingIOError):
        while piece := os.read(read, 1 << 16):
            data += piece
    return data


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def serve(modules: Sequence[str]) -> None:
    """Obey orders from stdin, one a line, until it is closed."""
    for module in modules:
        importlib.import_module(module)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a child prints before its own pipe is there is no reply
    for line in sys.stdin:
        replies.write(json.dumps(asdict(_obey(json.loads(line)))) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(sys.argv[1:])
