"""What docs/reliability.md says is what was counted."""

import json
from pathlib import Path

from kill_table import table

DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_is_the_figures() -> None:
    content = json.loads((DOCS / "reliability.json").read_text())
    assert content["kills"] == sum(sum(case["kills"].values()) for case in content["cases"])
    assert content["faults"] == sum(len(case["faults"]) for case in content["cases"])
    assert table(content) in (DOCS / "reliability.md").read_text()


def test_a_table_by_hand() -> None:
    cases = [
        {"case": "text", "kills": {"call": 3, "byte": 2}, "faults": []},
        {"case": "store", "kills": {"moment": 4}, "faults": ["torn"]},
    ]
    assert table({"cases": cases}).splitlines()[2:] == [
        "| text | 3 | 2 | 0 | 0 |",
        "| store | 0 | 0 | 4 | 1 |",
        "| **all: 9** | 3 | 2 | 4 | 1 |",
    ]
