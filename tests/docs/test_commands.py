"""Every command that the documentation shows is one that the program understands."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prod9.cli import autoencoder, main, transformer

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
APPS = {
    "prod9": main.app,
    "prod9-train-autoencoder": autoencoder.app,
    "prod9-train-transformer": transformer.app,
}


def commands() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.split("#")[0].strip()
                if command:
                    found.append((page.name, command))
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_command_is_understood(
    page: str, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = shlex.split(command)
    while "=" in words[0]:  # VAR=value in front of a command
        words.pop(0)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets
        return
    if words[0] not in APPS:
        assert words[0] in {"pip", "python", "tensorboard", "cd", "git"}, f"unknown: {command}"
        return
    monkeypatch.chdir(ROOT)
    arguments = words[1:]
    if arguments[0] == "train" and words[0] != "prod9":
        result = CliRunner().invoke(APPS[words[0]], [*arguments, "--print-config"])
        assert result.exit_code == 0, f"{page}: {command}\n{result.output}\n{result.exception}"
        assert "output_dir:" in result.output
        return
    # Everything else would work for minutes: parse it, but call nothing.
    called: list[dict[str, object]] = []
    app = APPS[words[0]]
    monkeypatch.setattr("typer.main.get_callback", _recorder(called))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{page}: {command}\n{result.output}\n{result.exception}"
    assert called, f"{page}: {command} calls nothing"


def _recorder(called: list[dict[str, object]]):
    def get_callback(*, callback: Callable[..., None] | None, **_: object):
        if callback is not None and callback.__name__ == "_only_version":
            return lambda **_: None  # it runs before every command

        def callback(**kwargs: object) -> None:
            called.append(kwargs)

        return callback

    return get_callback


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 10
