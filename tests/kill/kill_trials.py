"""One trial: prepare a folder, kill the work in it, look at what is left, do the work again."""

import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kill_snapshots import TORN, digest_of
from nursery import Ending, Kill, Nursery, Work

Snapshot = dict[str, str]
"""Digest of every file, by its name relative to the folder."""


@dataclass(frozen=True)
class Case:
    """A writer: what it does, where it starts from, and how a user does it again."""

    name: str
    work: Work
    again: Callable[[Path], Work]
    """What the user does after a kill; told the folder."""
    prepare: Work | Callable[[Path], None] = lambda folder: None
    """Fills the folder with what is there before."""
    ignored: Sequence[str] = ()
    """Names (globs) of logs, whose content depends on the time."""
    partial: Sequence[str] = ()
    """Names of what is known to be unfinished by its name, beside those that begin with a dot."""
    may_vanish: bool = False
    """Whether it was told to replace, so that the old may be gone before the new is there."""
    threads: bool = False
    """Whether threads race, so that the number of calls differs a little from time to time."""


@dataclass
class Tally:
    """What became of the kills of a case."""

    case: str
    kills: dict[str, int] = field(default_factory=dict[str, int])
    """By kind; only those in time."""
    faults: list[str] = field(default_factory=list[str])
    """What was lost, torn, left over or different, a line each."""

    @property
    def count(self) -> int:
        """Kills of all kinds."""
        return sum(self.kills.values())


def snapshot(folder: Path, case: Case) -> Snapshot:
    """Return the digests of all files but the ignored."""
    found: Snapshot = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(name.match(pattern) for pattern in case.ignored):
            found[str(name)] = digest_of(path)
    return found


def unfinished(name: str, case: Case) -> bool:
    """Whether a name says that nobody should read the file."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return hidden or any(path.match(pattern) for pattern in case.partial)


class Trials:
    """Kills of one case, each from the same state, in the same folder (paths are in some files)."""

    def __init__(self, case: Case, nursery: Nursery, place: Path) -> None:
        self.case, self.nursery = case, nursery
        self.folder, self.start = place / "work", place / "start"
        self.start.mkdir(parents=True)
        if isinstance(case.prepare, Work):
            ending = nursery.run(case.prepare, self.start)
            assert ending.code == 0, ending.output
        else:
            case.prepare(self.start)
        self.before = snapshot(self.start, case)
        self.survey = self._whole()
        self.after = snapshot(self.folder, case)
        assert TORN not in self.after.values()
        assert not [name for name in self.after if unfinished(name, case)], "leftovers unkilled"
        sizes = {path.stat().st_size for path in self.folder.rglob("*") if path.is_file()}
        self.largest = max(sizes)
        # Without this, a difference after a kill would prove nothing.
        self.seconds = self._whole().seconds
        assert snapshot(self.folder, case) == self.after, "two sound runs differ"
        self.tally = Tally(case.name)

    def _reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.start, self.folder)

    def _whole(self) -> Ending:
        self._reset()
        ending = self.nursery.run(self.case.work, self.folder)
        assert ending.code == 0, ending.output
        return ending

    def every_call(self, stride: int = 1) -> list[Kill]:
        """Return a kill before each call, or before every ``stride``-th."""
        return [Kill("call", k) for k in range(0, len(self.survey.calls), stride)]

    def some_bytes(self, count: int, seed: int = 0) -> list[Kill]:
        """Return kills in mid-write: before the first byte, and at random places."""
        draw = random.Random(f"{self.case.name} {seed}")
        places = [int(self.largest ** draw.uniform(0.3, 1)) for _ in range(count - 1)]
        return [Kill("byte", place) for place in [0, *places]]

    def some_moments(self, count: int, seed: int = 0) -> list[Kill]:
        """Return kills at random moments of the work."""
        draw = random.Random(f"{self.case.name} {seed}")
        return [Kill("moment", draw.uniform(0, self.seconds)) for _ in range(count)]

    def kill(self, kill: Kill) -> None:
        """Kill the work there, look at what is left, do it again, compare."""
        self._reset()
        ending = self.nursery.run(self.case.work, self.folder, kill)
        if not ending.killed:
            # It may have been quicker this time, and threads may race; else calls are never missed.
            if kill.kind == "call" and not (self.case.threads and ending.code == 0):
                self._fault(kill, ending, f"was not killed (exit code {ending.code})")
            return
        self.tally.kills[kill.kind] = self.tally.kills.get(kill.kind, 0) + 1
        for fault in self._left():
            self._fault(kill, ending, fault)
        for path in self.folder.rglob(".*.tmp.*"):  # a day later, when leftovers are removed
            os.utime(path, (0, 0))
        done = self.nursery.run(self.case.again(self.folder), self.folder)
        if done.code != 0:
            self._fault(kill, ending, f"done again it fails: {done.output[-500:]}")
            return
        now = snapshot(self.folder, self.case)
        for name in sorted(now.keys() | self.after.keys()):
            if now.get(name) != self.after.get(name):
                what = "missing" if name not in now else "different"
                what = what if name in self.after else "left over"
                self._fault(kill, ending, f"done again, {name} is {what}")

    def _left(self) -> list[str]:
        """What a kill has torn or lost."""
        found = snapshot(self.folder, self.case)
        faults: list[str] = []
        for name, digest in found.items():
            known = [self.before.get(name), self.after.get(name)]
            known += self.survey.committed.get(name, [])
            if not unfinished(name, self.case) and digest not in known:
                faults.append(f"{name} is neither the old one nor a new one")
        if not self.case.may_vanish:
            faults += [f"{name} is lost" for name in self.before if name not in found]
        return faults

    def _fault(self, kill: Kill, ending: Ending, what: str) -> None:
        if kill.kind == "call":
            where = f"before {[*self.survey.calls, 'a call that is not made'][int(kill.at)]}"
        elif kill.kind == "byte":
            where = f"at byte {kill.at:g}, after {(ending.calls or ['the start'])[-1]}"
        else:
            where = f"after {kill.at:.3f} s and {(ending.calls or ['the start'])[-1]}"
        self.tally.faults.append(f"{self.case.name}, killed {where}: {what}")
