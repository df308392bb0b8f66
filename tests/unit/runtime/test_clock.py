import time

import pytest

from prod9.runtime.clock import Clock, shares


def test_parts_add_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    moments = iter([0.0, 1.0, 4.0, 9.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    clock = Clock()
    for part in ("read", "train", "read"):
        clock.lap(part)
    assert clock.seconds == {"read": 6.0, "train": 3.0, "total": 9.0}
    assert capsys.readouterr().err.splitlines()[-1] == "[0.1 min] read: 6 s"


def test_a_quiet_clock_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Clock(quiet=True).lap("part")
    assert capsys.readouterr().err == ""


def test_shares_and_the_rest() -> None:
    seconds = {"stage1": 30.0, "stage2": 40.0, "figures": 20.0, "total": 100.0}
    found = shares(seconds, {"training": ("stage1", "stage2"), "figures": ("figures", "absent")})
    assert found == pytest.approx({"training": 0.7, "figures": 0.2, "rest": 0.1})
