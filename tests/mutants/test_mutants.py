import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tools.mutants import BEGIN, END, ROOT, Mutant, Outcome, read_mutants, run_all, with_rows

MUTANTS = read_mutants()
DOUBLE = Mutant("doubles nothing", "double.py", "2 * x", "x", ("test_double.py",))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a repository of one function and one test."""
    (tmp_path / "src/prod9").mkdir(parents=True)
    (tmp_path / "src/prod9/__init__.py").touch()
    (tmp_path / "src/prod9/double.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "tests").mkdir()
    write_test(tmp_path, "double(3) == 6")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def write_test(project: Path, claim: str) -> None:
    lines = ("from prod9.double import double", "def test_double():", f"    assert {claim}", "")
    (project / "tests/test_double.py").write_text("\n".join(lines))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_list_fits_the_code(mutant: Mutant) -> None:
    assert mutant.applied(ROOT) != (ROOT / "src/prod9" / mutant.file).read_text(encoding="utf-8")
    for test in mutant.tests:
        assert (ROOT / "tests" / test).is_file()


def test_names_are_names() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


@pytest.mark.parametrize("text", ["x = 1\n", "2 * x + 2 * x\n"])
def test_an_old_text_that_is_not_there_once_is_an_error(project: Path, text: str) -> None:
    (project / "src/prod9/double.py").write_text(text)
    with pytest.raises(ValueError, match="doubles nothing"):
        run_all(project, [DOUBLE])


def test_found(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outcome,) = run_all(project, [DOUBLE])
    assert outcome.verdict == "found"
    assert outcome.detail == "tests/test_double.py::test_double"
    assert "found: doubles nothing" in capsys.readouterr().out
    assert "2 * x" in (project / "src/prod9/double.py").read_text()  # the working tree is left


def test_missed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_test(project, "double(0) == 0")
    (outcome,) = run_all(project, [DOUBLE])
    assert outcome.verdict == "missed"
    assert "missed: doubles nothing" in capsys.readouterr().out


def test_what_cannot_be_imported_is_broken_not_found(project: Path) -> None:
    slip = Mutant("no such name", "double.py", "def double(x)", "def treble(x)", DOUBLE.tests)
    (outcome,) = run_all(project, [slip])
    assert outcome.verdict == "broken"


def test_tests_that_fail_anyway_find_nothing(project: Path) -> None:
    write_test(project, "double(3) == 7")
    with pytest.raises(RuntimeError, match="unbroken code"):
        run_all(project, [DOUBLE])


def test_rows_are_put_between_the_markers_and_others_stay() -> None:
    first, second, third = (replace(DOUBLE, name=name) for name in ("first", "second", "third"))
    head, rule = "| mutant | file | found by |", "|---|---|---|"
    old = ["above", BEGIN, head, rule, "| gone | `x.py` | `y` |", "| second | `x.py` | `y` |"]
    page = "\n".join([*old, END, "below", ""])
    seen = {
        first: Outcome("found", "tests/a/test_x.py::test_y[1|2]"),
        third: Outcome("missed"),
    }
    assert with_rows(page, [first, second, third], seen).splitlines() == [
        *("above", BEGIN, head, rule),
        "| first | `double.py` | `a/test_x.py::test_y` |",
        "| second | `x.py` | `y` |",
        "| third | `double.py` | **missed** |",
        *(END, "below"),
    ]
