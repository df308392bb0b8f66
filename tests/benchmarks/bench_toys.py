"""A benchmark of toys: what the tests let workers do in processes of their own."""

import os
import time

from benchmarks.contender import Case, Contender, Goal, Work
from benchmarks.results import Result, goal, result

MIB = 2**20


def sleeper(seconds: float) -> Work:
    return Work(lambda: time.sleep(seconds), flops=2e6, parameters=7)


def hungry(setup_mib: int, run_mib: int) -> Work:
    import bench_toy_package  # noqa: F401  (weighs 80 MiB)

    del [bytearray(b"x") * (setup_mib * MIB)][:]
    return Work(lambda: len(bytearray(b"x") * (run_mib * MIB)))


def broken(word: str) -> Work:
    raise ValueError(f"no such {word}")


def breaks_later() -> Work:
    def run() -> None:
        raise KeyError("late")

    return Work(run)


def rival_missing() -> Work:
    import no_such_rival  # noqa: F401

    raise AssertionError


def dies() -> Work:
    return Work(lambda: os._exit(9))


def add(a: int, b: int) -> int:
    return a + b


def cases() -> list[Case]:
    return [
        Case(
            "toy_sleep",
            "Sleep.",
            (
                Contender("prod9", sleeper, {"seconds": 0.02}),
                Contender("late", sleeper, {"seconds": 0.2}),
            ),
            goals=(Goal("late", ratio=2.0),),
            sizes={"long": 1},
            per_repeat={"naps": 4},
        ),
        Case("toy_broken", "Break.", (Contender("prod9", broken, {"word": "thing"}),)),
    ]


def run() -> list[Result]:
    return [
        result(
            "toy_own",
            "Compare.",
            ours=30.0,
            rivals={"other": 28.0},
            better="higher",
            unit="dB",
            goals=[goal("1 dB above other", 1.0, 2.0, unit="dB")],
        )
    ]
