"""A token store that is built by several processes, or in several attempts, is the same one."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forked import finish, kill, start, wait_for
from torch import Tensor

from prod9.data.tokens import build as build_module
from prod9.data.tokens.build import open_or_build
from prod9.data.tokens.store import TokenStore, TokenStoreKey, sound_meta
from prod9.errors import Prod9Error

SHIPPED_CELLS = build_module.SHARD_CELLS
KEY = TokenStoreKey(tokenizer_digest="aaa", data_digest="bbb", split="train")
GRID = (2, 3, 4)
COUNT = 38
"""Ten shards of four volumes, the last one short."""
TOKENS = torch.arange(COUNT * 24).reshape(COUNT, *GRID) % 900


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "SHARD_CELLS", 4 * 24 + 5)


def build(rank: int, root: Path, log: Path, pause: float = 0.0, **change: Any) -> TokenStore:
    """Build a store; ``log`` tells which process encoded which volume."""

    def encode(first: int, stop: int) -> Iterator[Tensor]:
        for volume in range(first, stop):
            with log.open("a") as file:
                file.write(f"{rank} {volume}\n")
            time.sleep(pause)
            yield TOKENS[volume : volume + 1]

    settings: dict[str, Any] = {
        "names": [f"toy/{i}" for i in range(COUNT)],
        "labels": np.arange(COUNT) % 2,
        "class_names": ("a", "b"),
        "grid": GRID,
        "codebook_size": 900,
        "encode": encode,
    }
    return open_or_build(root, KEY, **(settings | change))


def content(root: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    paths = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def encoded(log: Path) -> list[tuple[int, int]]:
    """Return (process, volume) in the order of encoding."""
    lines = log.read_text().splitlines() if log.exists() else []
    return [(int(rank), int(volume)) for rank, volume in map(str.split, lines)]


def shards(root: Path) -> list[int]:
    """Return the first volumes of the finished shards."""
    return sorted(int(path.name[:12]) for path in root.glob(".train-*/[0-9]*.tokens"))


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """Return the files of a store that was built in one go."""
    store = build(0, tmp_path / "whole", tmp_path / "whole.log")
    assert np.array_equal(store.tokens, TOKENS)
    assert store.labels.tolist() == [i % 2 for i in range(COUNT)]
    assert [volume for _, volume in encoded(tmp_path / "whole.log")] == [*range(COUNT)]
    return content(tmp_path / "whole")


def stopped_after(count: int) -> Any:
    def encode(first: int, stop: int) -> Iterator[Tensor]:
        if first >= count:
            raise KeyboardInterrupt
        yield TOKENS[first:stop]

    return encode


def test_an_interrupted_build_goes_on(
    tmp_path: Path, whole: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    root, log, told = tmp_path / "root", tmp_path / "log", []
    with pytest.raises(KeyboardInterrupt):
        build(0, root, log, encode=stopped_after(20))
    assert shards(root) == [0, 4, 8, 12, 16]
    assert sound_meta(root / KEY.folder_name) is None
    build(0, root, log, progress=lambda *each: told.append(each))
    assert encoded(log) == [(0, volume) for volume in range(20, COUNT)]
    assert "5 of 10 shards of tokens exist; going on" in capsys.readouterr().err
    assert told == [(done, 5) for done in range(6)]
    assert content(root) == whole


def test_shards_that_a_killed_run_left_are_removed(tmp_path: Path, whole: dict[str, bytes]) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        build(0, root, log, encode=stopped_after(20))
    shutil.copytree(tmp_path / "whole", root, dirs_exist_ok=True)
    build(0, root, log)
    assert encoded(log) == []
    assert content(root) == whole


def test_shards_of_other_sizes_are_not_used(tmp_path: Path, whole: dict[str, bytes]) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    for change in ({"codebook_size": 901}, {"class_names": ("a", "c")}):
        with pytest.raises(KeyboardInterrupt):
            build(0, root, log, encode=stopped_after(20), **change)
    build(0, root, log)
    assert len(encoded(log)) == COUNT
    assert content(root) == whole


def test_folders_of_another_key_stay(tmp_path: Path) -> None:
    for name in ("train-other-a", "val-other-c"):
        (tmp_path / f".{name}").mkdir()
    build(0, tmp_path, tmp_path / "log")
    left = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("."))
    assert left == [".train-other-a", ".val-other-c"]  # of another run, or of somebody else


def test_the_smallest_set_has_many_shards() -> None:
    per_shard = SHIPPED_CELLS // 8**3  # 971 volumes of 64^3, stride 8
    assert 971 / per_shard >= 7
    assert per_shard >= 64  # and no more files than a folder can bear


@pytest.mark.parametrize("harm", ["cut", "empty"])
def test_a_torn_shard_is_recognised(
    tmp_path: Path, whole: dict[str, bytes], harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        build(0, root, log, encode=stopped_after(20))
    (shard,) = root.glob(".train-*/000000000008.tokens")
    bad = {"cut": shard.read_bytes()[:-2], "empty": b""}
    shard.write_bytes(bad[harm])
    build(0, root, log)
    assert "000000000008.tokens is torn; encoding it again" in capsys.readouterr().err
    assert [v for _, v in encoded(log)] == [*range(20, COUNT), 8, 9, 10, 11]
    assert content(root) == whole


def test_a_store_that_another_run_finished_is_taken(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    root, log = tmp_path / "root", tmp_path / "log"

    def overtaken(first: int, stop: int) -> Iterator[Tensor]:
        if first == 36:  # the other run ends, and cleans up
            build(0, root, log)
        yield TOKENS[first:stop]

    build(0, root, log, encode=overtaken)
    assert content(root) == whole  # and nothing of the loser's


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([TOKENS[:3]], "do not fit"),
        ([TOKENS[:3], TOKENS[:2]], "do not fit"),
        ([TOKENS[:4, ..., :2]], "do not fit"),
    ],
)
def test_tokens_that_do_not_fit(tmp_path: Path, parts: list[Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(0, tmp_path, tmp_path / "log", encode=lambda first, stop: parts)
    assert shards(tmp_path) == []


def test_a_volume_larger_than_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "SHARD_CELLS", 5)
    assert np.array_equal(build(0, tmp_path / "root", tmp_path / "log").tokens, TOKENS)


def test_two_processes_build_what_one_does(tmp_path: Path, whole: dict[str, bytes]) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    finish(start(2, tmp_path / "meeting", build, root, log))
    assert content(root) == whole
    assert sorted(v for _, v in encoded(log)) == [*range(COUNT)]  # nothing twice
    assert Counter(rank for rank, _ in encoded(log)) == {0: 20, 1: 18}


def killed_and_gone_on(tmp_path: Path, moment: Any, worlds: list[int]) -> None:
    """Kill a build at a moment, as often as there are numbers of processes but one; then end it."""
    root, log = tmp_path / "root", tmp_path / "log"
    *killed, last = worlds
    for attempt, world in enumerate(killed):
        began = len(encoded(log))
        there = shards(root)
        processes = start(world, tmp_path / f"meeting{attempt}", build, root, log, 0.002)
        wait_for(lambda began=began: moment(root, len(encoded(log)) - began), processes)
        kill(processes)
        again = {volume // 4 * 4 for _, volume in encoded(log)[began:]}
        assert not again & {*there}  # what was finished is not begun again
        assert (root / KEY.folder_name).exists() or {*shards(root)} >= {*there}
    finish(start(last, tmp_path / "meeting", build, root, log))


@pytest.mark.parametrize("count", [0, 1, 15, 37])
def test_killed_in_mid_encoding(tmp_path: Path, whole: dict[str, bytes], count: int) -> None:
    killed_and_gone_on(tmp_path, lambda root, done: done > count, [1, 1])
    assert content(tmp_path / "root") == whole


def test_killed_with_two_processes_and_gone_on_with_three(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    killed_and_gone_on(tmp_path, lambda root, done: len(shards(root)) >= 3, [2, 3])
    assert content(tmp_path / "root") == whole
    assert {rank for rank, _ in encoded(tmp_path / "log")} == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("seed", range(8))
def test_killed_three_times_at_random(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    draw = random.Random(seed)
    until = [time.monotonic()]

    def moment(root: Path, done: int) -> bool:
        if not done:  # the clock runs from the first volume on
            until[0] = time.monotonic() + draw.uniform(0, 0.1)
        return done > 0 and time.monotonic() > until[0]

    killed_and_gone_on(tmp_path, moment, [draw.choice([1, 2]) for _ in range(4)])
    assert content(tmp_path / "root") == whole


def test_a_full_disk_leaves_what_is_finished(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, log = tmp_path / "root", tmp_path / "log"
    write = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        if len(shards(root)) == 5:
            raise OSError(28, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(Prod9Error, match=r"No space left on device; free some space"):
            build(0, root, log)
    assert len(shards(root)) == 5
    build(0, root, log)
    assert Counter(v for _, v in encoded(log)).most_common(1)[0][1] == 2
    assert [v for _, v in encoded(log)] == [*range(24), *range(20, COUNT)]
    assert content(root) == whole
    shutil.rmtree(root)
