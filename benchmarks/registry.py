"""Which benchmarks there are, and what their goals say of the results."""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType

from benchmarks.contender import Case
from benchmarks.harness import judge
from benchmarks.results import GoalResult, Result
from prod9.errors import Prod9Error

MODULES = tuple(
    f"benchmarks.{name}"
    for name in (
        "stage1_step",
        "quality_per_second",
        "encode_decode",
        "windows",
        "fsq",
        "focal_frequency",
        "stage2_step",
        "sampling",
        "data_loading",
        "growth",
        "levers",
        "profile",
        "plan",
    )
)


@dataclass(frozen=True)
class Benchmark:
    """A module with ``cases()`` (ordinary timing), ``run()`` (its own procedure), or both."""

    name: str
    module: ModuleType

    @property
    def title(self) -> str:
        return (self.module.__doc__ or "").strip().partition("\n")[0]

    @property
    def has_procedure(self) -> bool:
        return hasattr(self.module, "run")

    def cases(self) -> list[Case]:
        return self.module.cases() if hasattr(self.module, "cases") else []

    def run(self) -> list[Result]:
        return self.module.run()


@dataclass(frozen=True)
class Selected:
    """What is to be run of a benchmark."""

    benchmark: Benchmark
    cases: tuple[Case, ...]
    procedure: bool


def load(path: str) -> Benchmark:
    """Import a benchmark's module.

    Raises:
        Prod9Error: it, or a package that it needs, is missing.

    """
    name = path.rpartition(".")[2]
    try:
        return Benchmark(name, importlib.import_module(path))
    except ModuleNotFoundError as error:
        if error.name == path:
            raise Prod9Error(f"there is no benchmark {name} (module {path}).") from error
        raise Prod9Error(
            f"{name} needs the package {error.name}: pip install '.[bench]'."
        ) from error
    except ImportError as error:
        raise Prod9Error(f"{name} cannot be imported: {error}.") from error


def select(names: Sequence[str], modules: Sequence[str] = MODULES) -> list[Selected]:
    """Return what ``names`` stand for, in the order of the registry; without names everything.

    A name is that of a module, of a case, or ``MODULE.run``, the module's own procedure alone. A
    module is imported only if it may be meant.

    Raises:
        Prod9Error: a name that nothing has; a module, asked for by name, that cannot be imported.

    """
    left = set(names)
    chosen: list[Selected] = []
    known: list[str] = []
    for path in modules:
        name = path.rpartition(".")[2]
        known.append(name)
        asked = not names or bool({name, f"{name}.run"} & left)
        if not asked and not left:
            continue
        try:
            benchmark = load(path)
        except Prod9Error:
            if asked:
                raise
            continue  # what is looked for may be in another
        cases = benchmark.cases()
        known += [case.name for case in cases]
        whole = not names or name in left
        wanted = tuple(case for case in cases if whole or case.name in left)
        procedure = benchmark.has_procedure and (whole or f"{name}.run" in left)
        left -= {name, *(case.name for case in wanted)}
        if procedure:
            left.discard(f"{name}.run")
        if wanted or procedure:
            chosen.append(Selected(benchmark, wanted, procedure))
    if left:
        raise Prod9Error(f"no benchmark is called {min(left)}: there are {', '.join(known)}.")
    return chosen


@dataclass(frozen=True)
class Line:
    """One line of ``--check``."""

    state: str
    name: str
    text: str = ""

    @property
    def good(self) -> bool:
        return self.state in ("met", "no goal")

    def __str__(self) -> str:
        return f"{self.state:<11} {self.name:<28} {self.text}".rstrip()


def check(results: Mapping[str, Result], modules: Sequence[str] = MODULES) -> Iterator[Line]:
    """Hold every registered goal against the results: a line each.

    A case's goals are those of the code now, not those that stand in the file.
    """
    for path in modules:
        try:
            benchmark = load(path)
        except Prod9Error as error:
            yield Line("no module", path.rpartition(".")[2], str(error))
            continue
        cases = benchmark.cases()
        for case in cases:
            result = results.get(case.name)
            goals = judge(case.goals, result) if result else []
            yield from _lines(case.name, result, goals)
        if benchmark.has_procedure:
            named = {case.name for case in cases}
            own = [
                r for r in results.values() if r.module == benchmark.name and r.name not in named
            ]
            if not own:
                yield Line("no result", benchmark.name)
            for result in own:
                yield from _lines(result.name, result, result.goals)


def _lines(name: str, result: Result | None, goals: Sequence[GoalResult]) -> Iterator[Line]:
    if result is None:
        yield Line("no result", name, f"python -m benchmarks {name}")
    elif not result.counts:
        why = "the machine was busy" if result.busy else "--quick"
        yield Line("NOT COUNTED", name, why)
    elif not goals:
        yield Line("no goal", name)
    for goal in goals if result is not None and result.counts else ():
        yield Line("met" if goal.met else "NOT MET", name, f"{goal.what}: {found_text(goal)}")


def in_order(results: Mapping[str, Result]) -> list[Result]:
    """Return the results by module, in the order of the registry; unknown modules last."""
    order = [path.rpartition(".")[2] for path in MODULES]
    places = {name: place for place, name in enumerate(order)}
    return sorted(results.values(), key=lambda result: places.get(result.module, len(order)))


def found_text(goal: GoalResult) -> str:
    """Say what was found: ``3.9x (3.7-4.1)``, ``812 MiB (bound: 1,400 MiB)``."""
    if goal.found is None:
        return "not measured"
    unit = goal.unit if goal.unit in ("", "x") else f" {goal.unit}"
    text = f"{number(goal.found)}{unit}"
    if goal.spread is not None:
        return f"{text} ({number(goal.spread[0])}-{number(goal.spread[1])})"
    if isinstance(goal.needed, tuple):
        return f"{text} (bound: {number(goal.needed[0])} to {number(goal.needed[1])}{unit})"
    if goal.needed is not None:
        return f"{text} (bound: {number(goal.needed)}{unit})"
    return text


def number(value: float) -> str:
    """Write three digits, or more where they stand before the point, or two below 1.

    1,234 and 123, 12.3 and 1.23, 0.12 and 0.012.
    """
    if not value:
        return "0"
    two, three = float(f"{value:.2g}"), float(f"{value:.3g}")
    if abs(two) < 0.001:
        return f"{two:g}"
    if abs(two) < 1:
        return f"{two:.{1 - math.floor(math.log10(abs(two)))}f}"
    before_point = max(0, math.floor(math.log10(abs(three))))
    return f"{value:,.{max(0, 2 - before_point)}f}"
