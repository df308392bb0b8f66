"""Every threat of SECURITY.md has a test, and the test is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (?!who|-)(.+) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


def test_there_are_threats() -> None:
    assert len(ROWS) >= 15


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" | ")[1])
def test_a_threat_has_a_test(row: str) -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", row.split(" | ")[3])
    assert named
    for path, name in named:
        text = (ROOT / "tests" / path).read_text()
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{path} has no {name}"
