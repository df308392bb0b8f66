"""The tables of the configuration's page are the models' own."""

import subprocess
import sys
from pathlib import Path

import pytest

from prod9.config import Stage1Config, Stage2Config
from prod9.config.base import leaves

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"


def page(*arguments: object) -> int:
    command = [sys.executable, ROOT / "tools" / "config_page.py", *arguments]
    return subprocess.run(command, check=False, capture_output=True).returncode


def test_committed_page_is_up_to_date_and_can_be_written_anew(tmp_path: Path) -> None:
    assert page("--check", PAGE) == 0, "run: make pages"
    text = PAGE.read_text(encoding="utf-8")
    copy = tmp_path / "page.md"
    copy.write_text(text.replace("`8`", "`9`"), encoding="utf-8")
    assert page("--check", copy) == 1
    assert page(copy) == 0
    assert copy.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("model", [Stage1Config, Stage2Config])
def test_every_key_is_described(model: type[Stage1Config | Stage2Config]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for key, _, field in leaves(model):
        assert field.description, key
        row = next(line for line in text.splitlines() if line.startswith(f"| `{key}` | "))
        assert row.count("|") - row.count("\\|") == 5
    assert len(set(headings := [h for h in text.splitlines() if h.startswith("#")])) == len(
        headings
    )
    for row in (
        "| `data.batch_size` | whole number (above 0) | `8` | "
        "Volumes per training step and device. |",
        "| `loss.loss_type` | one of lpips, ffl | `lpips` | ",
        "| `loss.perceptual.weights_path` | path or null | `null` | ",
    ):
        assert row in text
