"""What work costs in a process of its own, and the exponent of its growth."""

import numpy as np
import pytest

from benchmarks.contender import Work
from benchmarks.costs import alone, exponent, plot
from prod9.errors import Prod9Error

MIB = 2**20


def arrays(kept: int, taken: int) -> Work:
    """Hold ``kept`` MiB (after twice as much for a moment), take ``taken`` MiB in each repeat."""
    np.ones(2 * kept * MIB, np.uint8).sum()
    own = np.ones(kept * MIB, np.uint8)
    return Work(lambda: (own[:1], np.ones(taken * MIB, np.uint8))[0])


def failing() -> Work:
    raise ValueError("no such thing")


def test_memory_of_setup_and_work_are_told_apart() -> None:
    cost = alone(arrays, kept=50, taken=80, repeats=2)
    assert cost.working_mib == pytest.approx(80, abs=8)
    # What the setup let go again counts neither way.
    assert cost.memory_mib == pytest.approx(130, abs=12)
    assert cost.seconds > 0


def test_a_failure_is_told() -> None:
    with pytest.raises(Prod9Error, match="no such thing"):
        alone(failing)


def test_exponent() -> None:
    assert exponent([(n, 3 * n**1.5) for n in (10, 20, 70)]) == pytest.approx(1.5)
    assert exponent([(10, 2), (1000, 2)]) == pytest.approx(0)
    # Least squares: a straight line through (1, 1), (10, 10^2), (100, 10^2) rises by 1.
    assert exponent([(1, 1), (10, 100), (100, 100)]) == pytest.approx(1)


def test_plot_holds_plain_lists() -> None:
    found = plot("t", "x", "y", "s", {"a": [(1.0, 2.0)]})
    assert found["series"] == {"a": [[1.0, 2.0]]}
    assert (found["x_label"], found["y_label"], found["unit"]) == ("x", "y", "s")
