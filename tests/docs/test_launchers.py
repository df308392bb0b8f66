"""Commands behind torchrun and srun are commands that the program understands."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prod9.cli import autoencoder, transformer

ROOT = Path(__file__).parents[2]
APPS = {
    "prod9-train-autoencoder": autoencoder.app,
    "prod9-train-transformer": transformer.app,
}


def launched() -> list[list[str]]:
    """Return the prod9 part of every launched command of the pages."""
    found: list[list[str]] = []
    for page in (ROOT / "docs").glob("*.md"):
        for block in re.findall(r"```shell\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in ("torchrun", "srun"):
                    start = next(i for i, word in enumerate(words) if word.startswith("prod9"))
                    found.append(words[start:])
    return found


def test_there_are_both_launchers() -> None:
    assert len(launched()) >= 2


@pytest.mark.parametrize("words", launched(), ids=" ".join)
def test_a_launched_command_is_understood(words: list[str]) -> None:
    assert words[1] == "train"
    result = CliRunner().invoke(APPS[words[0]], [*words[1:], "--print-config"])
    assert result.exit_code == 0, f"{words}\n{result.output}\n{result.exception}"
    assert "trainer:" in result.output
