"""The installed commands, killed and stopped from outside, end where they would have."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from toy_runs import learned, logged, same, stage1_config, stage2_config

pytestmark = pytest.mark.slow

FLAG = "adrenalmnist3d"
STAGES = ["prod9-train-autoencoder", "prod9-train-transformer"]
EPOCHS = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file like MedMNIST's: six volumes to train on."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 6), ("val", 4), ("test", 2)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (count, 28, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    np.savez(folder / f"{FLAG}.npz", **arrays)
    return folder


def prepared(folder: Path, data: Path, command: str, tokenizer: Path, **settings: Any) -> Path:
    """Write a configuration of 18 steps into a folder of its own; return that folder."""
    folder.mkdir()
    settings |= {
        "trainer__max_epochs": EPOCHS,
        "callbacks__checkpoint__every_n_steps": 2,
        "data": {"dataset_name": FLAG, "root": data, "download": False, "batch_size": 2},
    }
    settings["data"]["num_workers"] = 2
    first = command == STAGES[0]
    config: Any = (
        stage1_config(folder, **settings) if first else stage2_config(folder, tokenizer, **settings)
    )
    (folder / "own.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return folder


def start(command: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start training in a process group of its own."""
    arguments = [Path(sys.executable).parent / command, "train", "-c", folder / "own.yaml"]
    return subprocess.Popen(
        [*arguments, *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(command: str, folder: Path, *options: str) -> str:
    process = start(command, folder, *options)
    _, text = process.communicate(timeout=300)
    assert process.returncode == 0, text
    return text


def after_changes(process: subprocess.Popen[str], path: Path, count: int) -> None:
    """Wait until a file was replaced ``count`` times."""
    seen, last = 0, 0
    deadline = time.monotonic() + 120
    while seen < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        try:
            now = path.stat().st_ino
        except FileNotFoundError:
            continue
        seen, last = seen + (now != last), now


@pytest.fixture(scope="module")
def wholes(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that nothing happened to."""
    root, found = tmp_path_factory.mktemp("wholes"), dict[str, Path]()
    for number, command in enumerate(STAGES):
        folder = prepared(root / str(number), data, command, root / "0" / "tokenizer.pt")
        finish(command, folder)
        found[command] = folder
    return found


def check(folder: Path, whole: Path) -> None:
    """The same weights, averages, moments, schedules and logged values, to the bit."""
    assert same(learned(folder), learned(whole))
    assert logged(folder) == logged(whole)
    for name in ("tokenizer.pt", "transformer.pt"):
        if (whole / name).exists():
            one, other = torch.load(folder / name), torch.load(whole / name)
            assert same(one["weights"], other["weights"])
    # Nothing half-written is left.
    assert not list(folder.rglob(".*tmp*"))


@pytest.mark.ci
@pytest.mark.parametrize("command", STAGES)
@pytest.mark.parametrize("seed", range(1))
def test_kill_9(
    wholes: dict[str, Path], data: Path, tmp_path: Path, command: str, seed: int
) -> None:
    """Killed three times, each time somewhere between two checkpoints or in one."""
    draw = random.Random(f"{command} {seed}")
    folder = prepared(tmp_path / "cut", data, command, wholes[STAGES[0]] / "tokenizer.pt")
    options: tuple[str, ...] = ()
    for _ in range(3):
        process = start(command, folder, *options)
        after_changes(process, folder / "checkpoints" / "last.ckpt", draw.randint(2, 4))
        time.sleep(draw.random() * 0.1)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        options = ("--resume",)
    finish(command, folder, "--resume")
    check(folder, wholes[command])


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        pytest.param(STAGES[0], signal.SIGTERM, 143, marks=pytest.mark.ci),
        (STAGES[1], signal.SIGINT, 130),
        (STAGES[1], signal.SIGUSR1, 143),
    ],
)
def test_signals_to_all_processes(
    wholes: dict[str, Path],
    data: Path,
    tmp_path: Path,
    command: str,
    number: signal.Signals,
    code: int,
) -> None:
    """As a terminal and a scheduler send them: to the loader's processes too."""
    folder = prepared(tmp_path / "cut", data, command, wholes[STAGES[0]] / "tokenizer.pt")
    process = start(command, folder, "--resume-or-start")
    after_changes(process, folder / "checkpoints" / "last.ckpt", 3)
    os.killpg(process.pid, number)
    _, text = process.communicate(timeout=300)
    assert (process.returncode, "Traceback" in text) == (code, False), text
    assert f"stopped by {number.name} " in text
    finish(command, folder, "--resume-or-start")
    check(folder, wholes[command])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_starts(
    wholes: dict[str, Path], data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Early, or as soon as there is a run folder: it ends, and what was there is whole."""
    command = STAGES[0]
    for early in (True, False):
        folder = prepared(tmp_path / str(early), data, command, tmp_path)
        process = start(command, folder)
        if early:
            time.sleep(2)
        else:
            while not list(folder.rglob("config.yaml")):
                time.sleep(0.01)
        os.killpg(process.pid, number)
        _, text = process.communicate(timeout=300)
        # -number: Python itself was still being imported. 0: something that was being imported has
        # swallowed the signal, as Python does within some callbacks.
        assert process.returncode in (128 + number, -number, *([0] if early else [])), text
        finish(command, folder, "--resume-or-start")
        check(folder, wholes[command])
