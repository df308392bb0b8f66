"""What a benchmark found: one JSON file per result, with everything that decides its figures."""

import datetime
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

import prod9
from benchmarks.machine import describe
from prod9.errors import Prod9Error
from prod9.files import write_text

RESULTS = Path(__file__).parent / "results"


class _Record(BaseModel):
    # A NaN or an infinity is no figure; JSON could not hold it either.
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class GoalResult(_Record):
    """Whether one claim holds."""

    what: str
    needed: float | tuple[float, float] | None
    """A bound, or the lowest and highest value that are allowed."""
    found: float | None
    met: bool
    unit: str = ""
    spread: tuple[float, float] | None = None


class Ceiling(_Record):
    """The machine's own best rate for such work, and how much of it prod9 reaches."""

    kind: str
    gflops_per_second: float
    share: float | None


class Result(_Record):
    """The figures of one case or of one procedure."""

    kind: Literal["prod9-benchmark"] = "prod9-benchmark"
    name: str
    title: str
    module: str = ""
    unit: str = "s"
    better: Literal["higher", "lower"] = "lower"
    ours: float | None = None
    """prod9's figure; of an ordinary case the median seconds of a repeat."""
    ours_name: str = "prod9"
    rivals: dict[str, float] = Field(default_factory=dict)
    ratio: dict[str, float] = Field(default_factory=dict)
    """How many times as good as each rival (above 1 prod9 is ahead): median over the repeats."""
    spread: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """10th to 90th percentile of the repeats' ratios; with fewer than 8 repeats least and most."""
    memory_mib: dict[str, float] = Field(default_factory=dict)
    """Peak of the process, less what it held before setup and what importing packages took."""
    total_memory_mib: dict[str, float] = Field(default_factory=dict)
    memory_includes_setup: bool = False
    """True where the system cannot forget a high-water mark: then setup's own peak counts too."""
    parameters: dict[str, int] = Field(default_factory=dict)
    gflops_per_second: dict[str, float] = Field(default_factory=dict)
    ceiling: Ceiling | None = None
    per_repeat: dict[str, float] = Field(default_factory=dict)
    goal: str | None = None
    goals: list[GoalResult] = Field(default_factory=list)
    met: bool | None = None
    machine: dict[str, Any] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    seed: int = 0
    sizes: dict[str, Any] = Field(default_factory=dict)
    repeats: int = 1
    date: str = ""
    command: str = ""
    busy: bool = False
    others_share: float | None = None
    """Share of the machine's processor time that other processes took meanwhile."""
    quick: bool = False
    seconds: dict[str, list[float]] = Field(default_factory=dict)
    figures: dict[str, Any] = Field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether the figures mean anything: an idle machine, all the repeats."""
        return not (self.busy or self.quick)

    def save(self, folder: Path) -> Path:
        """Write ``<name>.json``, whole or not at all."""
        path = folder / f"{self.name}.json"
        text = json.dumps(self.model_dump(), indent=2, allow_nan=False)
        write_text(path, text + "\n")
        return path


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions that decide a time: Python, torch, prod9 and the named packages."""
    found = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "prod9": prod9.__version__,
    }
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Return the date and time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def goals_text(goals: Sequence[GoalResult]) -> str | None:
    """Return the goals as one sentence; None without any."""
    return "; ".join(goal.what for goal in goals) or None


def goal(
    what: str,
    needed: float | tuple[float, float],
    found: float,
    *,
    better: Literal["higher", "lower"] = "higher",
    unit: str = "",
) -> GoalResult:
    """Judge a claim: ``found`` on the better side of ``needed``, or within the pair's bounds."""
    if isinstance(needed, tuple):
        met = needed[0] <= found <= needed[1]
    else:
        met = found >= needed if better == "higher" else found <= needed
    return GoalResult(what=what, needed=needed, found=found, met=met, unit=unit)


def result(
    name: str,
    title: str,
    *,
    ours: float | None = None,
    rivals: Mapping[str, float] | None = None,
    better: Literal["higher", "lower"] = "lower",
    unit: str = "s",
    goals: Sequence[GoalResult] = (),
    figures: Mapping[str, Any] | None = None,
    packages: Iterable[str] = (),
    **more: Any,
) -> Result:
    """Build the result of a module's own procedure; ``more`` are other fields of :class:`Result`.

    The ratio is above 1 where prod9 is better; decibels have none (they are a logarithm already).
    ``packages`` are the rivals' packages on PyPI.
    """
    rivals = dict(rivals or {})
    ratio: dict[str, float] = {}
    if ours and unit != "dB":
        ratio = {
            rival: ours / theirs if better == "higher" else theirs / ours
            for rival, theirs in rivals.items()
        }
    return Result(
        name=name,
        title=title,
        unit=unit,
        better=better,
        ours=ours,
        rivals=rivals,
        ratio=ratio,
        goals=list(goals),
        goal=goals_text(goals),
        met=all(each.met for each in goals) if goals else None,
        figures=dict(figures or {}),
        versions=versions(packages),
        date=now(),
        machine=describe(),
        **more,
    )


def read_all(folder: Path = RESULTS) -> dict[str, Result]:
    """Read the results of a folder, by name; JSON files of another kind are left out.

    Raises:
        Prod9Error: a file that says it is such a result, but is not as this version writes them.

    """
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("kind") != "prod9-benchmark":
                continue
            read = Result.model_validate(content)
        except ValueError as error:  # pydantic's and JSON's mistakes are both of this kind
            raise Prod9Error(
                f"{path} cannot be read as a benchmark's result; run that benchmark again: {error}"
            ) from error
        found[read.name] = read
    return found
