"""Workers in processes of their own; turns, ratios and goals; the command line."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import bench_toys
import pytest
import torch

from benchmarks import __main__ as command_line
from benchmarks import harness
from benchmarks.contender import Case, Contender, Goal
from benchmarks.machine import BusyWatch
from benchmarks.registry import check, select
from benchmarks.results import Result, read_all
from benchmarks.worker import Memory, Prepared, Worker, WorkerError
from prod9.errors import Prod9Error

ours = Contender("prod9", bench_toys.sleeper, {"seconds": 0.0})
rival = Contender("rival", bench_toys.sleeper, {"seconds": 0.0})


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("x in y", threads=3) as worker:
        yield worker


def test_a_setup_that_fails_says_who_and_why(worker: Worker) -> None:
    with pytest.raises(WorkerError) as caught:
        worker.set_up(Contender("x", bench_toys.broken, {"word": "volume"}))
    first, *rest = str(caught.value).splitlines()
    assert first == "x in y failed: ValueError: no such volume"
    assert any("in broken" in line for line in rest)


def test_a_repeat_that_fails_says_so(worker: Worker) -> None:
    worker.set_up(Contender("x", bench_toys.breaks_later))
    with pytest.raises(WorkerError, match="x in y failed: KeyError: 'late'"):
        worker.repeat()


def test_a_missing_rival_says_what_to_install(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"no_such_rival'; install the rivals: pip install"):
        worker.set_up(Contender("x", bench_toys.rival_missing))


def test_a_setup_that_no_process_could_find(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"<lambda> is not a function of a module"):
        worker.set_up(Contender("x", lambda: None))


def test_a_worker_answers_with_its_threads(worker: Worker) -> None:
    assert worker.call("bench_toys:add", a=2, b=3) == 5
    assert worker.call("torch:get_num_threads") == 3
    assert worker.call("os:getenv", key="OMP_NUM_THREADS") == "3"


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is Linux's")
def test_memory_is_the_works_own() -> None:
    # Setup lets go of 300 MiB before the work begins; importing its package takes 80 MiB.
    eater = Contender("eater", bench_toys.hungry, {"setup_mib": 300, "run_mib": 60})
    found = harness.measure_alone(eater, repeats=2, warmup=1, threads=1).memory
    assert found.own is not None
    assert found.total is not None
    assert not found.includes_setup
    assert 58 < found.own < 75  # freed heap serves again
    assert found.total > 60 + 80


def test_a_worker_that_dies_is_noticed() -> None:
    with Worker("x in y", threads=1) as worker:
        assert worker.set_up(Contender("x", bench_toys.dies)) == Prepared(None, None)
        with pytest.raises(WorkerError, match=r"x in y: its process ended .* \(exit code 9;"):
            worker.repeat()


class _Scripted:
    """In a worker's place: takes the times from a script and notes who was asked when."""

    script: dict[str, list[float]]
    turns: list[str]

    def __init__(self, label: str, threads: int) -> None:
        self.name = label.partition(" ")[0]

    def __enter__(self) -> "_Scripted":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def call(self, function: str, **arguments: object) -> float:
        assert (function, arguments["kind"]) == ("benchmarks.machine:ceilings", "conv3d")
        return 4.0

    def set_up(self, contender: Contender) -> Prepared:
        return Prepared(flops=6e9, parameters=len(contender.name))

    def warm_up(self) -> None:
        self.turns.append(f"warm {self.name}")

    def repeat(self) -> float:
        self.turns.append(self.name)
        return self.script[self.name].pop(0)

    def memory(self) -> Memory:
        own = {"prod9": 10.0, "rival": 30.0, "other": 10.0}[self.name]
        return Memory(own + 100, own, False)

    def packages(self) -> list[str]:
        return ["pydantic"] if self.name == "rival" else []


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[_Scripted]:
    class Scripted(_Scripted):
        turns: list[str] = []  # noqa: RUF012
        script = {  # noqa: RUF012
            "prod9": [2.0, 4.0, 3.0],
            "rival": [4.0, 16.0, 9.0],
            "other": [2.0, 2.0, 3.0],
        }

    class Idle:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> BusyWatch:
            return BusyWatch(others_share=0.01)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(harness, "Worker", Scripted)
    monkeypatch.setattr(harness, "idle_machine", Idle)
    monkeypatch.setattr(harness, "_PAUSE", 0)
    return Scripted


def _case(**more: object) -> Case:
    contenders = (ours, rival, Contender("other", bench_toys.sleeper))
    return Case("three", "Three.", contenders, repeats=3, warmup=1, **more)


def test_turns_ratios_and_goals(scripted: type[_Scripted]) -> None:
    goals = (Goal("rival", ratio=3.0, less_memory=True), Goal("other", ratio=1.0, less_memory=True))
    found = harness.measure(_case(goals=goals, ceiling="conv3d", sizes={"side": 9}), threads=1)
    assert scripted.turns == [
        *("warm prod9", "warm rival", "warm other"),
        *("prod9", "rival", "other", "other", "rival", "prod9", "prod9", "rival", "other"),
    ]
    assert found.ours == 3.0
    assert found.rivals == {"rival": 9.0, "other": 2.0}
    # Of each repeat, then the median: 2, 4, 3 and 1, 0.5, 1; not 9 / 3 and 2 / 3.
    assert found.ratio == {"rival": 3.0, "other": 1.0}
    assert found.spread == {"rival": (2.0, 4.0), "other": (0.5, 1.0)}
    assert [(g.what, g.needed, g.found, g.met) for g in found.goals] == [
        ("3x as fast as rival", 3.0, 3.0, True),
        ("less memory than rival", 30.0, 10.0, True),
        ("1x as fast as other", 1.0, 1.0, True),
        ("less memory than other", 10.0, 10.0, False),  # equal is not less
    ]
    assert found.met is False
    # 6 GFLOP in 3 s, of a machine that does 4 GFLOP/s.
    assert found.gflops_per_second["prod9"] == 2.0
    assert found.ceiling is not None
    assert found.ceiling.share == 0.5
    assert found.memory_mib == {"prod9": 10.0, "rival": 30.0, "other": 10.0}
    assert found.total_memory_mib["rival"] == 130.0
    assert found.parameters == {"prod9": 5, "rival": 5, "other": 5}
    assert set(found.versions) == {"python", "torch", "prod9", "pydantic"}
    assert found.versions["torch"] == torch.__version__
    assert found.command == "python -m benchmarks three"
    assert found.others_share == 0.01
    assert found.counts


def test_a_ratio_just_below_its_goal_is_not_met(scripted: type[_Scripted]) -> None:
    found = harness.measure(_case(goals=(Goal("rival", ratio=3.01),)), threads=1)
    assert [goal.met for goal in found.goals] == [False]
    assert found.met is False
    assert found.ceiling is None


def test_quick_is_two_repeats_and_counts_nothing(scripted: type[_Scripted]) -> None:
    found = harness.measure(_case(), threads=1, quick=True)
    assert found.seconds["rival"] == [4.0, 16.0]
    assert found.met is None
    assert not found.counts


@pytest.mark.parametrize(
    ("case", "mistake"),
    [
        (Case("c", "", (ours, ours)), "each of a name of its own"),
        (Case("c", "", ()), "needs contenders"),
        (Case("c", "", (ours, rival), goals=(Goal("riwal"),)), "goal against riwal"),
    ],
)
def test_a_case_that_contradicts_itself(case: Case, mistake: str) -> None:
    with pytest.raises(Prod9Error, match=mistake):
        harness.measure(case)


def test_spread() -> None:
    assert harness.spread([3.0, 1.0, 2.0]) == (1.0, 3.0)
    # 0..10: the 10th and 90th percentile.
    assert harness.spread([float(i) for i in range(11)]) == (1.0, 9.0)


def test_from_the_command_line_to_the_goals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--even-if-busy", "--results", str(tmp_path), "--threads", "1"]
    toys = ["bench_toys"]
    assert command_line.main(["--quick", *options], toys) == 1  # one of the cases is broken
    shown = capsys.readouterr().out
    assert "toy_sleep  prod9 2" in shown
    assert "toy_broken  not measured: prod9 in toy_broken failed: ValueError" in shown
    assert "which --quick leaves out" in shown
    found = read_all(tmp_path)["toy_sleep"]
    assert found.module == "bench_toys"
    assert found.quick
    assert len(found.seconds["late"]) == 2
    assert found.seconds["late"][0] >= 0.2
    assert found.ratio["late"] > 1

    assert command_line.main(["--check", *options], toys) == 1
    why = "the machine was busy" if found.busy else "--quick"
    assert capsys.readouterr().out.splitlines() == [
        f"NOT COUNTED toy_sleep                    {why}",
        "no result   toy_broken                   python -m benchmarks toy_broken",
        "no result   bench_toys",
    ]
    assert command_line.main(["--list"], toys) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "bench_toys: A benchmark of toys: what the tests let workers do in processes of their own.",
        "    toy_sleep                    Sleep.",
    ]


def test_a_procedure_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--even-if-busy", "--results", str(tmp_path)]
    assert command_line.main(["bench_toys.run", *options], ["bench_toys"]) == 0
    found = read_all(tmp_path)["toy_own"]
    assert (found.module, found.met, found.ratio) == ("bench_toys", True, {})
    assert "toy_own  prod9 30.0 dB; other 28.0 dB" in capsys.readouterr().out
    assert json.loads((tmp_path / "toy_own.json").read_text())["command"].endswith("toys.run")


def _toy(**more: object) -> Result:
    return Result(name="toy_sleep", title="Sleep.", module="bench_toys", ours=1.0, **more)


def test_check_judges_by_the_goals_of_the_code() -> None:
    # The file claims nothing of goals; the code wants twice the speed.
    slow = _toy(rivals={"late": 1.9}, ratio={"late": 1.9}, spread={"late": (1.7, 2.2)})
    fast = _toy(rivals={"late": 3.94}, ratio={"late": 3.94}, spread={"late": (3.7, 4.1)})
    lines = [str(line) for line in check({"toy_sleep": slow}, ["bench_toys"])]
    assert (
        lines[0] == "NOT MET     toy_sleep                    2x as fast as late: 1.90x (1.70-2.20)"
    )
    line, *_ = check({"toy_sleep": fast}, ["bench_toys"])
    assert (line.state, line.good) == ("met", True)
    assert line.text == "2x as fast as late: 3.94x (3.70-4.10)"
    line, *_ = check({"toy_sleep": _toy()}, ["bench_toys"])
    assert (line.state, line.text) == ("NOT MET", "2x as fast as late: not measured")
    line, *_ = check({"toy_sleep": fast.model_copy(update={"busy": True})}, ["bench_toys"])
    assert (line.state, line.good) == ("NOT COUNTED", False)


def test_check_takes_a_procedures_goals_from_its_result() -> None:
    own = bench_toys.run()[0].model_copy(update={"module": "bench_toys"})
    *_, line = check({"toy_own": own}, ["bench_toys"])
    assert str(line) == (
        "met         toy_own                      1 dB above other: 2.00 dB (bound: 1.00 dB)"
    )
    *_, line = check({}, ["benchmarks.no_such_module"])
    assert (line.state, line.good) == ("no module", False)


def test_names_of_modules_cases_and_procedures() -> None:
    def chosen(*names: str) -> SimpleNamespace:
        (only,) = select(names, ["bench_toys"])
        return SimpleNamespace(cases=[c.name for c in only.cases], procedure=only.procedure)

    both = ["toy_sleep", "toy_broken"]
    assert chosen() == SimpleNamespace(cases=both, procedure=True)
    assert chosen("bench_toys") == SimpleNamespace(cases=both, procedure=True)
    assert chosen("toy_broken") == SimpleNamespace(cases=["toy_broken"], procedure=False)
    assert chosen("bench_toys.run") == SimpleNamespace(cases=[], procedure=True)
    with pytest.raises(
        Prod9Error, match=r"no benchmark is called toy_slep: .*bench_toys, toy_sleep"
    ):
        select(["toy_slep"], ["benchmarks.no_such_module", "bench_toys"])
    with pytest.raises(Prod9Error, match="there is no benchmark no_such_module"):
        select(["no_such_module"], ["benchmarks.no_such_module"])
