"""One version, said by every command and wherever a release is named."""

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import yaml

import prod9
from prod9.cli import autoencoder, doctor, main, transformer
from prod9.cli.options import print_table

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("script", [main, autoencoder, transformer], ids=lambda s: s.__name__)
def test_a_command_says_its_version(
    script: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["prod9", "--version"])
    with pytest.raises(SystemExit, match="0"):
        script.run()  # type: ignore[attr-defined]
    assert capsys.readouterr().out == f"prod9 {prod9.__version__}\n"


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == prod9.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"]


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "version", _lacking("SimpleITK"))
    found = dict(doctor.findings(tmp_path))
    assert found["SimpleITK"] == "not installed (pip install 'prod9[itk]')"
    assert "not installed" not in found["torch"]
    print_table([("SimpleITK", found["SimpleITK"])])
    assert found["SimpleITK"] in capsys.readouterr().out  # brackets are no markup


def _lacking(missing: str) -> Callable[[str], str]:
    def version(package: str) -> str:
        if package == missing:
            raise PackageNotFoundError(package)
        return "1"

    return version
