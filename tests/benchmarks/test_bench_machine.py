"""Who uses the machine, and how fast it could be."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine

STAT = "cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 0 0\n"


def _stat(pid: int, parent: int, *ticks: int, name: str = "python") -> str:
    utime, stime, dead_utime, dead_stime = ticks
    between = " ".join("0" * 9)
    return f"{pid} ({name}) S {parent} {between} {utime} {stime} {dead_utime} {dead_stime} 20 0"


def test_idle_and_waiting_for_disks_is_not_work() -> None:
    assert machine.busy_ticks(STAT) == 100 + 20 + 30 + 6 + 7 + 8


def test_a_tree_of_processes() -> None:
    stats = {
        1: _stat(1, 0, 1000, 0, 0, 0),
        10: _stat(10, 1, 5, 1, 40, 2),  # its dead children: 42
        11: _stat(11, 10, 7, 0, 0, 0, name="a (b) c"),
        12: _stat(12, 11, 100, 3, 0, 0),
        20: _stat(20, 1, 9999, 0, 0, 0),  # somebody else's
    }
    assert machine.tree_ticks(stats, 10) == 48 + 7 + 103


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the readings be (seconds, all ticks, own ticks) of a machine of 2 x 100 ticks/s."""
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(machine.os, "sysconf", lambda _: 100)
    monkeypatch.setattr(machine.time, "sleep", lambda _: None)

    def read(*readings: tuple[float, int, int]) -> None:
        script = [machine._Reading(*each) for each in readings]
        monkeypatch.setattr(machine, "_read", lambda: script.pop(0))

    return read


# 10 s of two processors: 2000 ticks. 300 of them are others' when all is 1500 and ours 1200.
BUSY_BEFORE = [(0.0, 0, 0), (1.0, 21, 0)]
IDLE_BEFORE = [(0.0, 0, 0), (1.0, 20, 0)]


def test_the_share_of_others(clock: Callable[..., None]) -> None:
    before, after = machine._Reading(5.0, 100, 50), machine._Reading(15.0, 1600, 1250)
    assert machine.others_share(before, after) == pytest.approx(300 / 2000)


def test_a_busy_machine_is_not_measured(clock: Callable[..., None]) -> None:
    clock(*BUSY_BEFORE)
    with (
        pytest.raises(machine.BusyMachine, match="other processes use 10%"),  # 10.5
        machine.idle_machine(),
    ):
        pytest.fail("it began")


def test_what_others_disturbed_is_thrown_away(clock: Callable[..., None]) -> None:
    clock(*IDLE_BEFORE, (10.0, 0, 0), (20.0, 1500, 1200))
    with (
        pytest.raises(machine.BusyMachine, match="used 15% of this machine's processors"),
        machine.idle_machine(),
    ):
        pass


def test_even_if_busy_says_so(clock: Callable[..., None]) -> None:
    clock(*BUSY_BEFORE, (10.0, 0, 0), (20.0, 1200, 1200))
    with machine.idle_machine(even_if_busy=True) as before:
        pass
    assert (before.busy, before.others_share) == (True, 0.0)
    clock(*IDLE_BEFORE, (10.0, 0, 0), (20.0, 1500, 1200))
    with machine.idle_machine(even_if_busy=True) as during:
        pass
    assert (during.busy, during.others_share) == (True, pytest.approx(0.15))


def test_an_idle_machine(clock: Callable[..., None]) -> None:
    # Our own 1990 of 2000 ticks are no disturbance.
    clock(*IDLE_BEFORE, (10.0, 0, 0), (20.0, 2000, 1990))
    with machine.idle_machine() as watch:
        pass
    assert (watch.busy, watch.others_share) == (False, pytest.approx(0.005))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_childs_time_is_ours() -> None:
    before = machine._read()
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)
    after = machine._read()
    assert before is not None
    assert after is not None
    own = (after.own_ticks - before.own_ticks) / machine.os.sysconf("SC_CLK_TCK")
    assert own > 0.25
    assert after.all_ticks >= before.all_ticks


def test_a_rate_is_work_over_the_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 10.0, 12.0, 20.0, 29.0])  # 1, 2 and 9 s
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(times))
    calls: list[int] = []
    assert machine._rate(lambda: calls.append(1), 6e9, 3) == pytest.approx(3.0)
    assert len(calls) == 4


def test_ceilings_count_what_they_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[tuple[float, float]] = []

    def rate(work: Callable[[], object], flops: float, repeats: int) -> float:
        with FlopCounterMode(display=False) as counter:
            work()
        counted.append((flops, counter.get_total_flops()))
        return float(len(counted))

    monkeypatch.setattr(machine, "_rate", rate)
    # The best is the last of the two memory formats' two shapes.
    assert machine._conv3d(1, ((4, 6, 2), (8, 5, 1))) == 4.0
    assert all(said == found for said, found in counted)
    counted.clear()
    ways = machine._matmul(1, (16,))
    assert ways == len(counted) >= 3
    assert {said for said, _ in counted} == {2 * 16**3}
    # PyTorch's counter does not know oneDNN's own product, the fourth.
    assert [found for _, found in counted[:3]] == [2 * 16**3] * 3


def test_the_ways_to_multiply_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[torch.Tensor] = []

    def rate(work: Callable[[], torch.Tensor], flops: float, repeats: int) -> float:
        outcomes.append(work())
        return 1.0

    torch.manual_seed(0)
    monkeypatch.setattr(machine, "_rate", rate)
    machine._matmul(1, (16,))
    torch.manual_seed(0)
    x, weight = torch.randn(16, 16), torch.randn(16, 16)
    expected = F.linear(x, weight)
    torch.testing.assert_close(outcomes[0], x @ weight)
    torch.testing.assert_close(outcomes[2][0, :, 0].t(), expected, rtol=1e-5, atol=1e-5)
    for outcome in outcomes[1:2] + outcomes[3:]:
        torch.testing.assert_close(outcome, expected, rtol=1e-5, atol=1e-5)


def test_a_machine_is_described_without_its_name() -> None:
    told = machine.describe(3)
    assert told["threads"] == 3
    assert set(told) == {
        *("processor", "threads", "logical_cores", "capability", "memory_gib", "system")
    }
    assert machine.platform.node() not in told.values()
