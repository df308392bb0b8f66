"""A process of its own for one contender: it sets up, repeats, and says what memory it took."""

import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from benchmarks import peak_memory
from benchmarks.contender import Contender, Work
from prod9.errors import Prod9Error

# Module and PyPI name of the rivals: their versions are reported where they were used.
_RIVALS = {
    "monai": "monai",
    "diffusers": "diffusers",
    "vector_quantize_pytorch": "vector-quantize-pytorch",
    "focal_frequency_loss": "focal-frequency-loss",
}


class WorkerError(Prod9Error):
    """A contender failed: one sentence that names it, then its own traceback."""


@dataclass(frozen=True)
class Prepared:
    """What a contender's setup says of itself."""

    flops: float | None
    parameters: int | None


@dataclass(frozen=True)
class Memory:
    """In MiB; None where the system does not tell."""

    total: float | None
    """The most that the process held."""
    own: float | None
    """The same, less what it held before setup and what importing packages added."""
    includes_setup: bool


class _Desk:
    """The child's side: one method per question."""

    def __init__(self) -> None:
        self._imports: peak_memory.ImportMemory | None = None
        self._import_mib = 0.0

    def set_up(self, setup: str, arguments: dict[str, Any]) -> Prepared:
        function = _function(setup)
        self._stop_watching()
        self._before = peak_memory.resident()
        self._imports = peak_memory.ImportMemory().__enter__()
        self._work: Work = function(**arguments)
        self._forgot = peak_memory.forget()
        return Prepared(self._work.flops, self._work.parameters)

    def warm_up(self) -> None:
        """Run a repeat that does not count; it may import what is imported late."""
        self._work.run()

    def repeat(self) -> float:
        """Return the seconds of one repeat."""
        self._stop_watching()
        run = self._work.run
        start = time.perf_counter()
        outcome = run()
        seconds = time.perf_counter() - start
        del outcome
        return seconds

    def memory(self) -> Memory:
        self._stop_watching()
        total, before = peak_memory.peak(), self._before
        own = None
        if total is not None and before is not None:
            own = max(0.0, total - before - self._import_mib)
        return Memory(total, own, not self._forgot)

    def packages(self) -> list[str]:
        """Return the rivals' packages that were used."""
        return [package for module, package in _RIVALS.items() if module in sys.modules]

    def call(self, function: str, arguments: dict[str, Any]) -> Any:
        """Call any function in this process, return what it returns."""
        return _function(function)(**arguments)

    def _stop_watching(self) -> None:
        # A timed repeat runs with Python's own import.
        if self._imports is not None:
            self._imports.__exit__(None, None, None)
            self._import_mib = self._imports.mib
            self._imports = None


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _serve(connection: Connection, threads: int) -> None:
    # Ctrl-C goes to the whole terminal's group; the parent decides and ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    desk = _Desk()
    while True:
        try:
            verb, arguments = connection.recv()
        except EOFError:  # the parent is gone
            return
        if verb == "stop":
            return
        try:
            answer = ("answer", getattr(desk, verb)(**arguments))
        except BaseException as error:  # whatever it is, the parent must hear of it
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            text = f"{type(error).__name__}: {error}"
            answer = ("error", (text, missing, traceback.format_exc()))
        try:
            connection.send(answer)
        except OSError:  # the same, during the work
            return


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Give the child's libraries their number of threads: they read it once, when loaded."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Worker:
    """The parent's side; use it in a ``with`` statement, which ends the process.

    Every method raises :class:`WorkerError`, with the contender's traceback, when it fails or dies.
    """

    def __init__(self, label: str, threads: int) -> None:
        self.label = label
        context = multiprocessing.get_context("spawn")
        self._connection, child = context.Pipe()
        self._process = context.Process(target=_serve, args=(child, threads), name=label)
        with _environment(threads):
            self._process.start()
        child.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(patience=10 if error is None else 0.2)

    def set_up(self, contender: Contender) -> Prepared:
        setup = contender.setup
        if "<" in setup.__qualname__ or "." in setup.__qualname__:
            raise WorkerError(
                f"{self.label}: its setup {setup.__qualname__} is not a function of a module."
            )
        name = f"{setup.__module__}:{setup.__qualname__}"
        return self._ask("set_up", setup=name, arguments=contender.arguments)

    def warm_up(self) -> None:
        self._ask("warm_up")

    def repeat(self) -> float:
        return self._ask("repeat")

    def memory(self) -> Memory:
        return self._ask("memory")

    def packages(self) -> list[str]:
        return self._ask("packages")

    def call(self, function: str, **arguments: Any) -> Any:
        """Call ``module:function`` there."""
        return self._ask("call", function=function, arguments=arguments)

    def stop(self, patience: float = 10) -> None:
        """End the process: kindly, then firmly."""
        with suppress(OSError):  # it may be dead
            self._connection.send(("stop", {}))
        self._connection.close()
        self._process.join(patience)
        for end in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                end()
                self._process.join(5)

    def _ask(self, verb: str, **arguments: Any) -> Any:
        try:
            self._connection.send((verb, arguments))
            # Its death is looked for, too: a child of its own may keep the pipe open.
            while not self._connection.poll(0.5):
                if not self._process.is_alive() and not self._connection.poll(0):
                    raise EOFError
            kind, content = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise WorkerError(
                f"{self.label}: its process ended without an answer "
                f"(exit code {self._process.exitcode}; killed for memory?)."
            ) from error
        if kind == "answer":
            return content
        text, missing, trace = content
        hint = f"{text}; install the rivals: pip install '.[bench]'" if missing else text
        raise WorkerError(f"{self.label} failed: {hint}\n{trace}")
