"""What GitHub and packagers read says what the project does."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_the_workflow_runs_what_ci_runs_on_every_python() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["pinned"]["steps"]]
    pythons = jobs["pinned"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    assert pythons == ["3.11", "3.12", "3.13", "3.14"]
    resolutions = {row["resolution"] for row in jobs["ranges"]["strategy"]["matrix"]["include"]}
    assert resolutions == {"lowest-direct", "highest"}


def test_the_workflow_calls_targets_that_there_are() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    for called in re.findall(r"run: make (.*)", text):
        assert set(called.split()) <= set(targets)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_asks_for(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.stem == "config":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    asked = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) > 0
    assert all(part["attributes"]["label"] for part in asked)


def test_every_extra_is_explained() -> None:
    text = (ROOT / "docs" / "install.md").read_text()
    for extra in PROJECT["optional-dependencies"]:
        assert f"`{extra}`" in text, extra


def test_every_extra_that_a_message_names_is_one() -> None:
    named: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        named |= set(re.findall(r"prod9\[([a-z,]+)\]", path.read_text()))
    assert named == {"demo", "hub", "itk", "segmentation"}
    assert named <= set(PROJECT["optional-dependencies"])
