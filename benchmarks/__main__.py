"""Run benchmarks, check their goals, write their tables and plots."""

import argparse
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.results import Result

_PATIENCE = 20
"""Seconds between two lines of progress where no terminal shows them."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="modules, cases, or MODULE.run (its own procedure alone); everything without any",
    )
    parser.add_argument("--threads", type=int, help="processor threads (PyTorch's own choice)")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="where results lie (benchmarks/results)"
    )
    parser.add_argument(
        "--even-if-busy", action="store_true", help="measure beside others; it will not count"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two repeats of each case, to see that they run; written to a temporary folder",
    )
    shows = parser.add_mutually_exclusive_group()
    shows.add_argument("--list", action="store_true", help="names and titles")
    shows.add_argument(
        "--check",
        action="store_true",
        help="hold the goals against the results: AVX2 alone, then AVX-512",
    )
    shows.add_argument("--tables", action="store_true", help="markdown tables of the results")
    shows.add_argument("--plots", type=Path, metavar="DIR", help="draw the results there")
    return parser


def _status() -> tuple[Callable[[str], None], Callable[[str], None]]:
    """Return how to say what goes on and what is done: a terminal shows the first on one line."""
    live = sys.stderr.isatty()
    last = -math.inf

    def progress(text: str) -> None:
        nonlocal last
        if live:
            print(f"\r\x1b[K{text[:118]}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() > last + _PATIENCE:
            last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    def done(text: str) -> None:
        if live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        print(text, flush=True)

    return progress, done


def _summary(result: "Result") -> str:
    """Return the line of a finished case."""
    from benchmarks.tables import amount, ratio_text

    parts: list[str] = []
    if result.ours is not None:
        parts.append(f"{result.ours_name} {amount(result.ours, result.unit)}")
    for rival, theirs in result.rivals.items():
        ratio = f": {ratio_text(result, rival)}" if rival in result.ratio else ""
        parts.append(f"{rival} {amount(theirs, result.unit)}{ratio}")
    if not result.counts:
        parts.append("does not count")
    return f"{result.name}  {'; '.join(parts) or 'done'}"


def _measure(options: argparse.Namespace, modules: Sequence[str]) -> int:
    """Run what is selected; a case that fails does not keep the next ones from running."""
    from benchmarks.harness import measure
    from benchmarks.machine import idle_machine
    from benchmarks.registry import select
    from benchmarks.results import RESULTS, Result
    from prod9.errors import Prod9Error

    folder: Path = options.results or RESULTS
    if options.quick and options.results is None:
        folder = Path(tempfile.mkdtemp(prefix="benchmarks-"))
    progress, done = _status()
    failures = done_so_far = 0
    chosen = select(options.names, modules)
    total = sum(len(each.cases) + each.procedure for each in chosen)

    def say(text: str) -> None:
        progress(f"[{done_so_far + 1} of {total}] {text}")

    def keep(result: Result, module: str) -> None:
        result = result.model_copy(update={"module": module})
        result.save(folder)
        done(_summary(result))

    for selected in chosen:
        name = selected.benchmark.name
        for case in selected.cases:
            try:
                keep(
                    measure(
                        case,
                        threads=options.threads,
                        quick=options.quick,
                        even_if_busy=options.even_if_busy,
                        say=say,
                    ),
                    name,
                )
            except Prod9Error as error:
                failures += 1
                done(f"{case.name}  not measured: {error}")
            done_so_far += 1
        if not selected.procedure:
            continue
        if options.quick:
            done(f"{name}  has a procedure of its own, which --quick leaves out")
            continue
        say(f"{name}: its own procedure")
        try:
            with idle_machine(options.even_if_busy) as watch:
                results = selected.benchmark.run()
            for result in results:
                seen = {"busy": watch.busy, "others_share": watch.others_share}
                command = {"command": f"python -m benchmarks {name}.run"}
                keep(result.model_copy(update=seen | command), name)
        except Prod9Error as error:
            failures += 1
            done(f"{name}  not measured: {error}")
        except Exception:  # a procedure is a program of its own; the next benchmarks still run
            failures += 1
            done(f"{name}  not measured: {traceback.format_exc()}")
        done_so_far += 1
    return 1 if failures else 0


def main(arguments: Sequence[str] | None = None, modules: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.threads:
        # Before PyTorch is loaded, and for the processes that a benchmark starts by itself.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    from benchmarks.registry import MODULES
    from prod9.errors import Prod9Error

    modules = MODULES if modules is None else modules
    try:
        return _dispatch(options, modules)
    except Prod9Error as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: what was finished is written", file=sys.stderr)
        return 130


def _dispatch(options: argparse.Namespace, modules: Sequence[str]) -> int:
    if options.list:
        return _list(modules)
    if options.check or options.tables or options.plots:
        from benchmarks.results import RESULTS, read_all

        if options.check:
            from benchmarks.registry import check

            # Most machines have AVX2 alone: its results come first.
            folders = [options.results] if options.results else [RESULTS / "avx2", RESULTS]
            good = True
            for folder in folders:
                lines = list(check(read_all(folder), modules))
                if not options.results:
                    print("AVX2:" if folder.name == "avx2" else "AVX-512:")
                print(*lines, sep="\n")
                good = good and all(line.good for line in lines)
            return 0 if good else 1
        results = read_all(options.results or RESULTS)
        if options.tables:
            from benchmarks.tables import tables

            print(tables(results), end="")
            return 0
        from benchmarks.plots import draw

        for path in draw(results, options.plots):
            print(path)
        return 0
    return _measure(options, modules)


def _list(modules: Sequence[str]) -> int:
    from benchmarks.registry import load
    from prod9.errors import Prod9Error

    for path in modules:
        try:
            benchmark = load(path)
        except Prod9Error as error:
            print(error)
            continue
        print(f"{benchmark.name}: {benchmark.title}")
        for case in benchmark.cases():
            print(f"    {case.name:<28} {case.title}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
