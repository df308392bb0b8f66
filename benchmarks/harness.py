"""Times a case: all contenders in turn, again and again, and the ratios of each turn."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from benchmarks.contender import Case, Contender, Goal
from benchmarks.machine import describe, idle_machine
from benchmarks.results import Ceiling, GoalResult, Result, goals_text, now, versions
from benchmarks.worker import Memory, Worker
from prod9.errors import Prod9Error

_QUICK = (2, 1)
_PAUSE = 0.02
"""Seconds before a repeat: the threads that the last contender used spin a little before they
sleep, and would take the next one's cores."""
_FEW = 8

Say = Callable[[str], None]


def _silent(text: str) -> None:
    pass


@dataclass(frozen=True)
class Alone:
    """What one contender did in a process of its own."""

    seconds: list[float]
    memory: Memory
    flops: float | None
    parameters: int | None


def measure_alone(
    contender: Contender, *, repeats: int = 1, warmup: int = 0, threads: int | None = None
) -> Alone:
    """Run one contender for a module's own procedure; memory counts from before its setup."""
    with Worker(contender.name, threads or torch.get_num_threads()) as worker:
        prepared = worker.set_up(contender)
        for _ in range(warmup):
            worker.warm_up()
        seconds = [worker.repeat() for _ in range(repeats)]
        return Alone(seconds, worker.memory(), prepared.flops, prepared.parameters)


def ratios(seconds: Mapping[str, Sequence[float]], ours: str) -> dict[str, list[float]]:
    """Return, for each rival, how many times as fast as it prod9 was, repeat by repeat."""
    return {
        name: [theirs / own for theirs, own in zip(times, seconds[ours], strict=True)]
        for name, times in seconds.items()
        if name != ours
    }


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the 10th and 90th percentile; of fewer than 8 values the least and the most."""
    if len(values) < _FEW:
        return min(values), max(values)
    low, high = np.percentile(values, [10, 90])
    return float(low), float(high)


def judge(goals: Sequence[Goal], result: Result) -> list[GoalResult]:
    """Hold a case's goals against what was found; a figure that is missing meets none."""
    judged: list[GoalResult] = []
    for goal in goals:
        rival = goal.rival
        if goal.ratio is not None:
            found = result.ratio.get(rival)
            judged.append(
                GoalResult(
                    what=f"{goal.ratio:g}x as fast as {rival}",
                    needed=goal.ratio,
                    found=found,
                    met=found is not None and found >= goal.ratio,
                    unit="x",
                    spread=result.spread.get(rival),
                )
            )
        if goal.less_memory:
            found = result.memory_mib.get(result.ours_name)
            needed = result.memory_mib.get(rival)
            judged.append(
                GoalResult(
                    what=f"less memory than {rival}",
                    needed=needed,
                    found=found,
                    met=found is not None and needed is not None and found < needed,
                    unit="MiB",
                )
            )
    return judged


def _check_case(case: Case) -> None:
    names = [contender.name for contender in case.contenders]
    if not names or len(set(names)) < len(names):
        raise Prod9Error(f"{case.name} needs contenders, each of a name of its own, not {names}.")
    for goal in case.goals:
        if goal.rival not in names[1:]:
            raise Prod9Error(f"{case.name} has a goal against {goal.rival}, which takes no part.")


def _ceiling(kind: str, case: Case, threads: int, quick: bool) -> float:
    with Worker(f"the ceiling of {case.name}", threads) as worker:
        return worker.call("benchmarks.machine:ceilings", kind=kind, repeats=2 if quick else 5)


def measure(
    case: Case,
    *,
    threads: int | None = None,
    quick: bool = False,
    even_if_busy: bool = False,
    say: Say = _silent,
) -> Result:
    """Measure one case; every contender has a process of its own and they take turns.

    Raises:
        Prod9Error: a case that contradicts itself.
        BusyMachine: others use the machine, and ``even_if_busy`` is not set.
        WorkerError: a contender failed.

    """
    _check_case(case)
    threads = threads or torch.get_num_threads()
    repeats, warmup = _QUICK if quick else (case.repeats, case.warmup)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in case.contenders}
    # The watch ends after the workers have: only then is all their processor time known as ours.
    with idle_machine(even_if_busy, sample=0.2 if quick else 1.0) as watch:
        ceiling = None
        if case.ceiling:
            say(f"{case.name}: the machine's best {case.ceiling} rate")
            ceiling = _ceiling(case.ceiling, case, threads, quick)
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            prepared = {}
            for contender in case.contenders:
                say(f"{case.name}: setting up {contender.name}")
                worker = stack.enter_context(Worker(f"{contender.name} in {case.name}", threads))
                prepared[contender.name] = worker.set_up(contender)
                workers[contender.name] = worker
            for turn in range(warmup):
                for name, worker in workers.items():
                    say(f"{case.name}: warm-up {turn + 1} of {warmup}, {name}")
                    worker.warm_up()
            for turn in range(repeats):
                # Whoever goes second finds a warmer machine: the order changes every time.
                for name in list(workers)[:: -1 if turn % 2 else 1]:
                    say(f"{case.name}: repeat {turn + 1} of {repeats}, {name}")
                    time.sleep(_PAUSE)
                    seconds[name].append(workers[name].repeat())
            memory = {name: worker.memory() for name, worker in workers.items()}
            packages = sorted({each for worker in workers.values() for each in worker.packages()})
    ours, *rivals = seconds
    medians = {name: median(times) for name, times in seconds.items()}
    per_turn = ratios(seconds, ours)
    rates = {
        name: each.flops / medians[name] / 1e9
        for name, each in prepared.items()
        if each.flops is not None
    }
    result = Result(
        name=case.name,
        title=case.title,
        ours=medians[ours],
        ours_name=ours,
        rivals={name: medians[name] for name in rivals},
        ratio={name: median(values) for name, values in per_turn.items()},
        spread={name: spread(values) for name, values in per_turn.items()},
        memory_mib={name: m.own for name, m in memory.items() if m.own is not None},
        total_memory_mib={name: m.total for name, m in memory.items() if m.total is not None},
        memory_includes_setup=any(m.includes_setup for m in memory.values()),
        parameters={
            name: each.parameters for name, each in prepared.items() if each.parameters is not None
        },
        gflops_per_second=rates,
        per_repeat=case.per_repeat,
        machine=describe(threads),
        versions=versions(packages),
        seed=case.seed,
        sizes=case.sizes,
        repeats=repeats,
        date=now(),
        command=f"python -m benchmarks {case.name}",
        busy=watch.busy,
        others_share=watch.others_share,
        quick=quick,
        seconds=seconds,
    )
    if ceiling is not None and case.ceiling:
        share = rates[ours] / ceiling if ours in rates else None
        result.ceiling = Ceiling(kind=case.ceiling, gflops_per_second=ceiling, share=share)
    return with_goals(result, judge(case.goals, result))


def with_goals(result: Result, goals: Sequence[GoalResult]) -> Result:
    """Return the result with these goals, their sentence, and whether all are met."""
    met = all(goal.met for goal in goals) if goals else None
    return result.model_copy(update={"goals": list(goals), "goal": goals_text(goals), "met": met})
