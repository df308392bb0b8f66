"""Files of plain data are whole or not there."""

import errno
import io
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.errors import Prod9Error
from prod9.torch_files import fitted, read_plain, write_plain
from prod9.training.last_checkpoint import WholeCheckpoints


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_plain(tmp_path / "a.pt", {"x": torch.arange(3), "text": "y"})
    content = read_plain(tmp_path / "a.pt", "")
    assert isinstance(content, dict)
    assert content["text"] == "y"
    assert torch.equal(content["x"], torch.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    WholeCheckpoints().save_checkpoint(content, str(path))


class Failing(io.FileIO):
    """A file whose disk takes ``room`` bytes, and then raises ``error``."""

    room: int
    error: BaseException

    def write(self, data: Any) -> int:
        taken = min(len(data), self.room - self.tell())
        if taken == 0:
            raise self.error
        return super().write(bytes(data)[:taken])


def failing(monkeypatch: pytest.MonkeyPatch, room: int, error: BaseException) -> None:
    """Let every file that is opened for writing be such a one."""

    def opened(self: Path, *_: Any) -> io.BufferedWriter:
        raw = Failing(self, "wb")
        raw.room, raw.error = room, error
        return io.BufferedWriter(raw)

    monkeypatch.setattr(Path, "open", opened)


def large(seed: float) -> dict[str, Any]:
    return {"weights": [torch.full((50_000,), seed + n) for n in range(4)]}


@pytest.mark.parametrize("write", [write_plain, save_checkpoint])
@pytest.mark.parametrize("room", [0, 10, 100_000, 500_000, 800_000])
def test_a_full_disk_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, room: int
) -> None:
    path = tmp_path / "last.ckpt"
    write_plain(path, {"old": 1})
    with monkeypatch.context() as patch:
        failing(patch, room, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(Prod9Error) as caught:
            write(path, large(0))
    assert ": No space left on device; free some space" in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert read_plain(path, "") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_an_interrupt_in_mid_write_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 100_000, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        write_plain(tmp_path / "x.pt", large(0))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        write_plain(tmp_path / "x.pt", {"x": lambda: 1})
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_not_held_in_memory(tmp_path: Path) -> None:
    content = {"x": torch.ones(4 << 20), "y": torch.ones(4 << 20)}  # 32 MiB
    tracemalloc.start()
    try:
        write_plain(tmp_path / "x.pt", content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x.pt").stat().st_size > 32 << 20
    assert peak < 4 << 20


def test_the_bytes_are_those_of_one_write(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(large(3), buffer)
    write_plain(tmp_path / "x.pt", large(3))
    assert (tmp_path / "x.pt").read_bytes() == buffer.getvalue()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"x": torch.arange(5)}, path)
    whole = path.read_bytes()
    for length in (0, 3, 22, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Prod9Error, match="torn"):
            read_plain(path, "x")


class Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "evil", [Evil(Path.touch, Path("trace")), Evil(eval, "open('trace', 'w')"), torch.nn.ReLU()]
)
def test_code_in_a_file_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evil: object, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    torch.save({"x": evil}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Prod9Error, match="more than plain data"):
        read_plain(path, "x")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]


def test_sizes_are_compared_before_memory_is_taken() -> None:
    weights = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
    with pytest.raises(ValueError, match="another network"):
        fitted(lambda: torch.nn.Linear(10**7, 10**7), weights)
    assert torch.equal(fitted(lambda: torch.nn.Linear(2, 2), weights).weight, torch.zeros(2, 2))
