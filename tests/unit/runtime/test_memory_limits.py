"""What a process may have: the tightest of machine, container, job and ``ulimit -v``."""

from pathlib import Path

import pytest

from prod9.errors import Prod9Error
from prod9.runtime import memory_limits

MIB = 1 << 20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which control groups are mounted; the process is in none yet."""
    monkeypatch.setattr(memory_limits, "physical_memory", lambda: 1000 * MIB)
    monkeypatch.setattr(memory_limits, "_PROC", tmp_path / "cgroup")
    monkeypatch.setattr(memory_limits, "_GROUPS", tmp_path / "groups")
    return tmp_path / "groups"


def limit(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_without_groups_it_is_the_machine(groups: Path) -> None:
    assert memory_limits.available_memory() == 1000 * MIB


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("slurm/job_7/step_0/memory.max", 300),  # the process's own
        ("slurm/job_7/memory.max", 300),  # of what it lies in
        ("memory.max", 300),  # of a container that sees itself as the root
        ("slurm/job_8/memory.max", 1000),  # another job's
    ],
)
def test_limits_are_followed_upward(groups: Path, where: str, found: int) -> None:
    (groups.parent / "cgroup").write_text("0::/slurm/job_7/step_0\n")
    limit(groups / "slurm" / "job_7" / "step_0" / "memory.max", "max")
    limit(groups / where, str(300 * MIB))
    assert memory_limits.available_memory() == found * MIB


def test_a_path_of_another_namespace_and_torn_lines(groups: Path) -> None:
    (groups.parent / "cgroup").write_bytes(b"0::/../../x\n\xff\n\n7\n")
    limit(groups.parent / "x" / "memory.max", str(MIB))
    assert memory_limits.available_memory() == 1000 * MIB


def test_what_a_container_may_not_have_is_refused(groups: Path) -> None:
    memory_limits.require_memory(400 * MIB, "x.nii")
    limit(groups / "memory.max", str(300 * MIB))
    with pytest.raises(Prod9Error, match=r"x\.nii needs 0\.4 GiB of memory, .* has 0\.3 GiB"):
        memory_limits.require_memory(400 * MIB, "x.nii")
