"""Break prod9 on purpose, one small place at a time, and see which everyday test finds it.

``python tools/mutants.py`` runs every mutant of ``tools/mutations`` (``--only NAME``: that one;
``--list``: name them). Each is applied in a copy of the tracked files, never in the working tree,
and the tests that it names are run there. Exit code 1 if one is missed. ``--table`` writes which
test found which mutant into ``docs/testing.md``.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[1]
LISTS = ROOT / "tools" / "mutations"
PAGE = ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"
_PACKAGE = Path("src") / "prod9"
_SECONDS = 900
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Mutant:
    """One mistake, as somebody might make it."""

    name: str
    """In plain words."""
    file: str
    """Below ``src/prod9``."""
    old: str
    """Occurs exactly once in the file."""
    new: str
    tests: tuple[str, ...]
    """Files of everyday tests, below ``tests``, that should find it."""

    def applied(self, root: Path) -> str:
        """Return the file's text with the mistake.

        Raises:
            ValueError: the list is out of date: the old text is not there exactly once.
        """
        text = (root / _PACKAGE / self.file).read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: {self.file} holds {count} times {self.old!r}, not once")
        mutated = text.replace(self.old, self.new)
        compile(mutated, self.file, "exec")  # a slip in the list itself is no mutant
        return mutated


@dataclass(frozen=True)
class Outcome:
    """What the tests said of a mutant."""

    verdict: Literal["found", "missed", "broken"]
    """broken: pytest neither passed nor failed, as where the mutant cannot even be imported."""
    detail: str = ""
    """The test that found it, or why it is broken."""


def read_mutants(folder: Path = LISTS) -> list[Mutant]:
    """Read the lists, file by file."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.toml"))]
    rows: list[dict[str, Any]] = [row for text in texts for row in tomllib.loads(text)["mutant"]]
    return [Mutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """Give a temporary copy of the tracked files, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (root / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, Path(folder) / name)
        yield Path(folder)


def run_tests(copy: Path, tests: Iterable[str]) -> Outcome:
    """Run everyday tests on the copy until one fails; "missed" means that all of them pass."""
    own = {"PYTHONPATH": f"{copy / 'src'}"}
    files = [f"tests/{test}" for test in tests]
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-x", "-q", "--tb=no"]
    command += ["-rfE", "-p", "no:cacheprovider", *files]
    try:
        done = subprocess.run(
            command, cwd=copy, env=os.environ | own, capture_output=True, text=True,
            timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome("broken", f"no end after {_SECONDS} s")
    if done.returncode == 0:
        return Outcome("missed")
    failed = _FAILED.findall(done.stdout)
    if done.returncode == 1 and failed:
        return Outcome("found", failed[0])
    last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return Outcome("broken", f"pytest ended with {done.returncode}: {' / '.join(last[-2:])}")


def judge(copy: Path, mutant: Mutant) -> Outcome:
    """Break the copy, run the mutant's tests, and mend the copy."""
    file = copy / _PACKAGE / mutant.file
    before = file.read_text(encoding="utf-8")
    _replace(file, mutant.applied(copy))
    try:
        return run_tests(copy, mutant.tests)
    finally:
        _replace(file, before)


def _replace(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    # Of two versions of one length, written within a second, Python would take the older bytecode.
    for bytecode in file.parent.glob(f"__pycache__/{file.stem}.*"):
        bytecode.unlink()


def run_all(root: Path, mutants: Sequence[Mutant]) -> list[Outcome]:
    """Judge each mutant, with a line on stdout for each.

    Raises:
        RuntimeError: the tests do not pass on the unbroken code.
        ValueError: as :meth:`Mutant.applied`, before anything runs.
    """
    for mutant in mutants:
        mutant.applied(root)
    outcomes: list[Outcome] = []
    with copy_of(root) as copy:
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        whole = run_tests(copy, tests)
        if whole.verdict != "missed":
            raise RuntimeError(f"the tests do not pass on the unbroken code: {whole.detail}")
        print(f"unbroken: {len(tests)} test files pass", flush=True)
        for number, mutant in enumerate(mutants, 1):
            outcome = judge(copy, mutant)
            outcomes.append(outcome)
            words = f"{outcome.verdict}: {mutant.name}  {outcome.detail}".rstrip()
            print(f"[{number}/{len(mutants)}] {words}", flush=True)
    return outcomes


def row_of(mutant: Mutant, outcome: Outcome) -> str:
    """Return a row of the Markdown table of what was seen."""
    # Without the values of a parametrised test, which may hold any character.
    found = outcome.detail.removeprefix("tests/").split("[")[0]
    by = f"`{found}`" if outcome.verdict == "found" else f"**{outcome.verdict}**"
    return f"| {mutant.name} | `{mutant.file}` | {by} |"


def with_rows(page: str, mutants: Sequence[Mutant], seen: Mapping[Mutant, Outcome]) -> str:
    """Return the page with the rows of ``seen`` between its markers.

    Other rows stay; those of mutants that no longer exist go.
    """
    head, rest = page.split(BEGIN)
    old, tail = rest.split(END)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in old.strip().splitlines()}
    rows |= {mutant.name: row_of(mutant, outcome) for mutant, outcome in seen.items()}
    kept = [rows[mutant.name] for mutant in mutants if mutant.name in rows]
    lines = ["| mutant | file | found by |", "|---|---|---|", *kept]
    return "\n".join([head + BEGIN, *lines, END + tail])


def main() -> int:
    """Run the mutants; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the mutants and run none")
    parser.add_argument("--only", metavar="NAME", action="append", help="run this one (repeatable)")
    parser.add_argument("--table", action="store_true", help="write the rows in docs/testing.md")
    asked = parser.parse_args()
    mutants = read_mutants()
    if asked.only and (unknown := set(asked.only) - {mutant.name for mutant in mutants}):
        parser.error(f"there is no mutant {sorted(unknown)[0]!r}; --list names them")
    chosen = [mutant for mutant in mutants if not asked.only or mutant.name in asked.only]
    if asked.list:
        print("\n".join(f"{mutant.name}  ({mutant.file})" for mutant in chosen))
        return 0
    try:
        outcomes = run_all(ROOT, chosen)
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if asked.table:
        page = PAGE.read_text(encoding="utf-8")
        seen = dict(zip(chosen, outcomes, strict=True))
        PAGE.write_text(with_rows(page, mutants, seen), encoding="utf-8")
    count = sum(outcome.verdict == "found" for outcome in outcomes)
    print(f"{count} of {len(outcomes)} found")
    return int(count < len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
