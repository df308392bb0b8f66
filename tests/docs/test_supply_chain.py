"""What prod9 is made of is pinned, can be listed, and is asked about where there is a network."""

import importlib.util
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from prod9.data.medmnist_table import PUBLISHED
from prod9.losses.weights import MEDICALNET_SHA256

ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_pin_has_one_version() -> None:
    pins = tool("audit").pins((ROOT / "constraints.txt").read_text())
    assert pins["torch"] == "2.13.0"
    assert len(pins) > 80
    for line in ("torch>=2.6", "torch", "torch==2.*", "torch==2,<3"):
        with pytest.raises(ValueError, match="no pin"):
            tool("audit").pins(line)


def test_every_dependency_is_pinned() -> None:
    pins = {
        name.lower().replace("_", "-")
        for name in tool("audit").pins((ROOT / "constraints.txt").read_text())
    }
    text = (ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'^    "([A-Za-z][\w.-]*)(?:\[\w+\])?[><=]', text, re.MULTILINE)
    assert "torch" in wanted
    assert {name.lower().replace("_", "-") for name in wanted} <= pins


def test_every_address_has_a_digest() -> None:
    addresses: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        addresses += re.findall(r"https://(?!arxiv|doi)[\w./{}?=-]+", path.read_text())
    hosts = {address.split("/")[2] for address in addresses}
    assert hosts == {"huggingface.co", "zenodo.org"}  # a new one needs a digest, here and there
    assert re.fullmatch(r"[0-9a-f]{64}", MEDICALNET_SHA256)
    for row in PUBLISHED:
        assert set(row.md5) == {28, 64}
        assert all(re.fullmatch(r"[0-9a-f]{32}", digest) for digest in row.md5.values())


ANSWER = {
    "dependencies": [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "b", "skip_reason": "not found on PyPI"},
    ],
    "fixes": [],
}
WEAK = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}


def test_what_pip_audit_says_is_judged() -> None:
    audit = tool("audit")
    code, text = audit.judge(json.dumps(ANSWER), "")
    assert (code, text) == (0, "pip-audit: no known weakness in 1 packages; not judged: b")
    code, text = audit.judge(
        json.dumps({**ANSWER, "dependencies": [*ANSWER["dependencies"], WEAK]}), ""
    )
    assert code == 1
    assert "c 2: PYSEC-1 (mended in 3)" in text


def test_an_index_without_a_service_is_no_verdict() -> None:
    unknown = {"dependencies": [{"name": "b", "skip_reason": "not found"}]}
    code, text = tool("audit").judge(json.dumps(unknown), "")
    assert code == 0
    assert text.endswith("skipped")


def test_no_network_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('no route to host')"]
    assert tool("audit").main(fails) == 0
    assert "skipped" in capsys.readouterr().out
    tip = "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed\nTip: x"
    assert tool("audit").judge("", tip)[0] == 0


def test_any_other_failure_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    fails = [sys.executable, "-c", "import sys; sys.exit('first\\nNo module named pip_audit')"]
    assert tool("audit").main(fails) == 1
    assert capsys.readouterr().out.endswith("without a verdict: No module named pip_audit\n")
    assert tool("audit").main(["there-is-no-such-program"]) == 1
    assert tool("audit").judge("", "") == (
        1,
        "pip-audit: failed without a verdict: it said nothing",
    )


@pytest.mark.slow
def test_the_bill_of_materials_lists_torch(tmp_path: Path) -> None:
    path = tmp_path / "sbom.json"
    subprocess.run([sys.executable, ROOT / "tools" / "sbom.py", path], check=True)
    content = json.loads(path.read_text())
    assert content["bomFormat"] == "CycloneDX"
    found = {part["name"]: part["version"] for part in content["components"]}
    for package in ("torch", "numpy", "pytorch-lightning"):
        assert found[package] == version(package)
