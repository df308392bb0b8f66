"""The manual of all keys is the models' own."""

from pathlib import Path

import pytest

from prod9.config import Stage1Config, Stage2Config
from prod9.config.document import document, main
from prod9.config.schema import fields

MANUAL = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_committed_manual_is_up_to_date() -> None:
    assert MANUAL.read_text(encoding="utf-8") == document(), (
        "run: python -m prod9.config.document > docs/configuration.md"
    )


@pytest.mark.parametrize("model", [Stage1Config, Stage2Config])
def test_every_key_is_described(model: type[Stage1Config | Stage2Config]) -> None:
    text = document()
    for key, field in fields(model):
        assert field.description, key
        assert f"| `{key}` | " in text
        assert field.description.replace("|", "\\|") in text


def test_rows() -> None:
    text = document()
    assert (
        "| `data.batch_size` | whole number, at least 1 | `8` | "
        "Volumes per training step and device. |"
    ) in text
    assert "| `loss.perceptual.weights_path` | path or null | `null` | " in text
    assert "8 * 8 * 6 * 5 = 1,920" in text


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.md"
    assert main(["--check", str(path)]) == 1
    assert main([]) == 0
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["--check", str(path)]) == 0
    path.write_text("old", encoding="utf-8")
    assert main(["--check", str(path)]) == 1
    assert "is out of date; run: python -m prod9.config.document" in capsys.readouterr().err
    assert main(["--wrong"]) == 2
