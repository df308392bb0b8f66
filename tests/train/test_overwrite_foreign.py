"""``--overwrite`` of every command: what somebody else has put into the folder stays as it is."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from console_scripts import in_this_one
from test_mistakes import (
    CASE,
    STAGE1,
    STAGE2,
    arrays,
    one_sentence,
    scan,
    train_both,
    write_brats_configs,
    write_configs,
    write_data,
)

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load
from prod9.data.phantom.cohort import make_phantom
from prod9.data.volume_files.write import write_nifti
from prod9.demo.demonstration import MARK, claim
from prod9.errors import Prod9Error

Content = dict[str, bytes]


@dataclass(frozen=True)
class Command:
    """A command with ``--overwrite``."""

    call: tuple[str, ...]
    folder: str
    """Where it writes."""
    beside: tuple[str, ...]
    """Files of somebody else that are in nobody's way."""
    in_the_way: tuple[str, ...] = ()
    """Names that it needs, where somebody else has a file."""
    done: bool = False
    """Whether what it makes is there already."""
    goes_on: bool = False
    """Whether it takes up by itself what is there."""


CUBES = ("--config", "stage2.yaml")
SCANS = ("--config", "brats2.yaml", "--steps", "2")
T1 = f"cohort/{CASE}/{CASE}_t1.nii.gz"
_RUN = (
    *("notes.txt", "checkpoints/mine.ckpt", "checkpoints/last.ckpt.orig", "previews/mine.png"),
    *("history/mine.csv", "tensorboard/mine", "nonfinite/mine.npz", "mine/last.ckpt"),
)
_RUN_NEEDS = ("config.yaml", "checkpoints/last.ckpt", "checkpoints/best-epoch=0.ckpt")
_RUN_NEEDS += ("history/metrics.csv", "metrics.json", "report.html")
COMMANDS = {
    "train 1": Command(
        (STAGE1, "train", "--config", "stage1.yaml"), "one", _RUN, _RUN_NEEDS, done=True
    ),
    "train 2": Command(
        (STAGE2, "train", *CUBES), "two", _RUN, (*_RUN_NEEDS, "transformer.pt"), done=True
    ),
    "generate": Command(
        (STAGE2, "generate", *CUBES, "-n", "1", "-o", "out"),
        "out",
        ("notes.txt", "mine/0000_left.nii.gz", "0000_left.nii.gz.orig"),
        ("patient_0001_t1.nii.gz", "0000_left.nii.gz", "manifest.json", "montage.png"),
    ),
    "sweep": Command(
        (STAGE2, "sweep", *CUBES, "-n", "2", "--space", "classifier", "--steps", "2", "-o", "out"),
        "out",
        ("notes.txt", "mine/sweep.csv"),
        ("sweep.json", "sweep.csv", "sweep.png", "preset.yaml"),
        goes_on=True,
    ),
    "infer": Command(
        (STAGE1, "infer", "--config", "stage1.yaml", "-i", "scan.nii.gz", "-o", "out"),
        "out",
        ("notes.txt", "scan.nii.gz", "scan_reconstructed.nii"),
    ),
    "translate": Command(
        (STAGE2, "translate", *SCANS, f"--source=T1={T1}", "--target=T2", "-o", "out/t2.nii.gz"),
        "out",
        ("notes.txt", "t1.nii.gz", "t2_mask.nii.gz", "t2_draw-1.nii.gz"),
    ),
    "inpaint": Command(
        (STAGE2, "inpaint", *SCANS, "--modality=T1", "-i", T1, "-m", "mask.nii.gz", "-o", "out"),
        "out",
        ("notes.txt", f"{CASE}_t1.nii.gz"),
    ),
    "evaluate": Command(
        ("prod9", "evaluate", "--real", "real", "--reconstructed", "again", "-o", "out"),
        "out",
        ("notes.txt", "mine/metrics.json"),
        ("metrics.json", "report.html", "reconstruction.csv"),
    ),
    "make-phantom-brats": Command(
        ("prod9", "data", "make-phantom-brats", "out", "--cases", "1"),
        "out",
        ("notes.txt", "BraTS2021_00000.nii.gz", "BraTS2021_00001/BraTS2021_00001_t1.nii.gz"),
        ("BraTS2021_00000/notes.txt", "BraTS2021_00000/BraTS2021_00000_t1.nii.gz"),
    ),
    "demo": Command(
        ("prod9", "demo", "-o", "out"),
        "out",
        (),
        ("metrics.json", "stage1/mine", "stage2/mine", "generated/patient.nii.gz", "index.html"),
    ),
    "demo brats": Command(
        ("prod9", "demo", "brats", "-o", "out"),
        "out",
        (),
        ("metrics.json", "cohort/BraTS2021_00000/mine", "cache/mine", "example/mine", "split.json"),
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which both stages are trained, on cubes and on scans."""
    folder = tmp_path_factory.mktemp("trained")
    write_data(folder / "data", **arrays())
    make_phantom(folder / "cohort", cases=4, release="2021", seed=0, voxel_mm=8.0)
    write_brats_configs(folder)
    train_both(folder / "stage1.yaml", folder / "stage2.yaml")
    train_both(folder / "brats1.yaml", folder / "brats2.yaml")
    shutil.copy(scan(folder, "seg"), folder / "mask.nii.gz")
    random = np.random.default_rng(0)
    for name in ("real", "again"):
        (folder / name).mkdir()
        for index in range(3):
            voxels = random.integers(0, 256, (12, 12, 12)).astype(np.uint8)
            write_nifti(folder / name / f"{index}.nii.gz", voxels, np.eye(4), np.uint8)
    shutil.copy(folder / "real" / "0.nii.gz", folder / "scan.nii.gz")
    return folder


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    """Return such a folder of one's own."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    write_configs(tmp_path)
    write_brats_configs(tmp_path)
    return tmp_path


def content(folder: Path) -> Content:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def put(folder: Path, *names: str) -> Content:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"mine: {name}".encode())
    return {name: (folder / name).read_bytes() for name in names}


def ran(work: Path, call: tuple[str, ...], *more: str) -> tuple[int, str, str]:
    return in_this_one(*call, *more, cwd=work, env={"PROD9_CACHE": str(work / "weights")})


@pytest.mark.parametrize("name", [name for name, each in COMMANDS.items() if each.beside])
def test_a_strangers_files_survive(work: Path, name: str) -> None:
    command = COMMANDS[name]
    folder = work / command.folder
    if not command.done:
        code, _, err = ran(work, command.call)
        assert code == 0, err
    first = content(folder)
    mine = put(folder, *command.beside)
    if not command.goes_on:
        code, _, err = ran(work, command.call)
        assert code == 2, err
        assert content(folder) == first | mine
    code, _, err = ran(work, command.call, "--overwrite")
    assert code == 0, err
    after = content(folder)
    assert {name: after[name] for name in mine} == mine
    dated = {name for name in first if name.startswith("tensorboard/events")}
    assert after.keys() >= first.keys() - dated
    assert not dated & after.keys()


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name, each in COMMANDS.items() for file in each.in_the_way]
)
def test_a_strangers_file_in_the_way_is_told(
    work: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("pytorch_lightning.Trainer.fit", never)
    monkeypatch.setattr("prod9.demo.brats.make_phantom", never)
    command = COMMANDS[name]
    folder = work / command.folder
    shutil.rmtree(folder, ignore_errors=True)
    put(folder, file, "notes.txt")
    before = content(work)
    said = one_sentence(*ran(work, command.call, "--overwrite"))
    assert Path(file).parts[0] in said
    assert content(work) == before


def test_going_on_and_beginning_anew_are_refused_together(work: Path) -> None:
    before = content(work)
    for name in ("train 1", "train 2", "generate"):
        said = one_sentence(*ran(work, COMMANDS[name].call, "--resume", "--overwrite"))
        assert "--resume" in said
        assert "--overwrite" in said
    assert content(work) == before


@pytest.mark.parametrize("name", ["train 1", "train 2"])
def test_no_checkpoint_outlives_a_run_whose_configuration_is_lost(work: Path, name: str) -> None:
    folder = work / COMMANDS[name].folder
    (folder / "config.yaml").unlink()
    old = (folder / "checkpoints" / "last.ckpt").read_bytes()
    (folder / "checkpoints" / "best-epoch=7.ckpt").write_bytes(old)
    code, _, err = ran(work, COMMANDS[name].call, "--overwrite", "seed=3")
    assert code == 0, err
    kept = content(folder / "checkpoints")
    assert "last.ckpt" in kept
    assert old not in kept.values()


@pytest.fixture
def demo(work: Path) -> Callable[..., None]:
    """Return what makes room for a demonstration in ``work/demo``, as `prod9 demo` does."""
    one = load(work / "stage1.yaml", Stage1Config, [f"output_dir={work / 'demo' / 'stage1'}"])
    two = load(work / "stage2.yaml", Stage2Config, [f"output_dir={work / 'demo' / 'stage2'}"])

    def make_room(*, overwrite: bool) -> None:
        claim(work / "demo", one, two, overwrite=overwrite)

    return make_room


def test_an_older_demo_is_replaced_and_no_more(work: Path, demo: Callable[..., None]) -> None:
    demo(overwrite=False)
    folder = work / "demo"
    marked = content(folder)
    shutil.copytree(work / "one", folder / "stage1")
    put(folder, "index.html", "metrics.json", "autoencoder.pt", "real.png")
    mine = put(folder, "notes.txt", "stage1/notes.txt", "stage2/notes.txt", "generated/notes.txt")
    before = content(folder)
    with pytest.raises(Prod9Error, match="already holds a demo"):
        demo(overwrite=False)
    assert content(folder) == before
    demo(overwrite=True)  # of a run's folder the run itself makes room
    after = content(folder)
    assert {name: each for name, each in after.items() if not name.startswith("stage1/")} == {
        name: each for name, each in (marked | mine).items() if not name.startswith("stage1/")
    }
    assert after["stage1/notes.txt"] == mine["stage1/notes.txt"]
    assert MARK in after


@pytest.mark.parametrize("file", ["stage2/checkpoints/last.ckpt", "generated/patient.nii.gz"])
def test_what_is_in_a_demos_way_is_told_before_it_begins(
    work: Path, demo: Callable[..., None], file: str
) -> None:
    demo(overwrite=False)
    put(work / "demo", "index.html", "metrics.json", file)
    before = content(work)
    with pytest.raises(Prod9Error, match=f"{file} is in the way"):
        demo(overwrite=True)
    assert content(work) == before
