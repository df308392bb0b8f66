"""Models from and to the Hugging Face Hub, which is never asked here."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_folder_samples import volumes

import prod9
from prod9.inference.hub import is_hub_name
from prod9.inference.model import Model
from prod9.inference.model_folder import FILES


class Hub:
    """Stands for huggingface_hub: one model, and what was asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.uploaded = folder, {}, {}  # type: ignore[var-annotated]

    def snapshot_download(self, name: str, **asked: Any) -> str:
        self.asked = {"name": name, **asked}
        if name != "user/name" or asked["local_files_only"]:
            raise FileNotFoundError("no such thing\nin two lines")
        return str(self.folder)

    def HfApi(self) -> "Hub":
        return self

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
        self.uploaded = {"name": name, "private": private}
        if name == "user/forbidden":
            raise PermissionError

    def upload_folder(self, *, repo_id: str, folder_path: str, **rest: Any) -> Any:
        self.uploaded |= {"files": {p.name for p in Path(folder_path).iterdir()}, **rest}
        return type("Commit", (), {"oid": "c0ffee"})


@pytest.fixture
def hub(model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hub:
    monkeypatch.chdir(tmp_path)
    commit = model_folder.rename(tmp_path / "5a4b")
    fake = Hub(commit)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)  # type: ignore[arg-type]
    return fake


def test_loaded_from_the_hub(
    hub: Hub, named_model: Model, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    loaded = prod9.load("user/name", device="cpu")
    assert np.array_equal(volumes(loaded), volumes(named_model))
    said = capsys.readouterr().err
    assert "fetching user/name from the Hugging Face Hub" in said
    assert "revision='5a4b'" in said
    assert hub.asked["allow_patterns"] == [*FILES]
    assert not [name for name in FILES if name.endswith((".py", ".pt"))]
    prod9.load("user/name", revision="v1")
    assert hub.asked["revision"] == "v1"
    assert "commit 5a4b" in capsys.readouterr().err
    prod9.load("user/name", revision="5a4b")
    assert "commit" not in capsys.readouterr().err
    with pytest.raises(prod9.Prod9Error, match=r"download=True.*path of a folder") as error:
        prod9.load("user/name", download=False)
    assert "\n" not in str(error.value)
    with pytest.raises(prod9.Prod9Error, match=r"user/none: .*check name"):
        prod9.load("user/none")
    hub.asked = {}
    named_model.save(tmp_path / "user" / "name")  # what is here is taken
    prod9.load("user/name", download=True)
    assert hub.asked == {}


def test_without_the_package(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # type: ignore[arg-type]
    with pytest.raises(prod9.Prod9Error, match=r"prod9\[hub\]"):
        prod9.load("user/name")


def test_what_is_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["user/name", "user/name.v2-x"]
    others = ["a.pt", "run/transformer.pt", "x/y/z", "./name", "../name", "/a", "x/y.yaml", "a/"]
    assert [is_hub_name(name) for name in names] == [True] * len(names)
    assert [name for name in [*others, Path("user/name")] if is_hub_name(name)] == []


def test_pushed_to_the_hub(hub: Hub, named_model: Model) -> None:
    assert named_model.push_to_hub("user/name", licence="MIT", message="First") == "c0ffee"
    assert hub.uploaded["private"] is True
    assert hub.uploaded["commit_message"] == "First"
    assert hub.uploaded["files"] == {p.name for p in hub.folder.iterdir()}
    assert {*hub.uploaded["allow_patterns"]} == {*FILES}
    with pytest.raises(prod9.Prod9Error, match="login"):
        named_model.push_to_hub("user/forbidden")


def test_the_real_package_and_its_cache(
    named_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(prod9.Prod9Error, match="no path here"):
        prod9.load("user/name", download=False)
    commit, root = "5a4b" * 10, tmp_path / "cache" / "models--user--name"
    named_model.save(root / "snapshots" / commit)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    for revision in (None, "main", commit):
        loaded = prod9.load("user/name", revision=revision, download=False, device="cpu")
        assert np.array_equal(volumes(loaded), volumes(named_model))
