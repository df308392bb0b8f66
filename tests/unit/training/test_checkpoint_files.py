"""There is always a whole checkpoint, and a torn one is recognised."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.errors import Prod9Error
from prod9.training import checkpoint_files
from prod9.training.checkpoint_files import (
    CONFIG_KEY,
    LAST,
    POSITION_KEY,
    PREVIOUS,
    Position,
    exists_in,
    read_last,
    write_last,
)


def content(number: int) -> dict[str, Any]:
    weights = torch.full((1000,), float(number))
    position = Position(epochs=number)._asdict()
    return {"number": number, "weights": weights, POSITION_KEY: position, CONFIG_KEY: "seed: 0"}


def written(folder: Path, *numbers: int) -> Path:
    for number in numbers:
        write_last(folder / LAST, content(number))
    return folder / LAST


def numbers(folder: Path) -> dict[str, int]:
    return {path.name: torch.load(path, weights_only=True)["number"] for path in folder.iterdir()}


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    assert not exists_in(tmp_path)
    written(tmp_path, 1)
    assert numbers(tmp_path) == {LAST: 1}
    written(tmp_path, 2, 3)
    assert numbers(tmp_path) == {LAST: 3, PREVIOUS: 2}
    assert exists_in(tmp_path)
    found = read_last(tmp_path)
    assert (found.path.name, found.content["number"], found.torn) == (LAST, 3, None)
    assert (found.position, found.config) == (Position(epochs=3), "seed: 0")


class Dead(BaseException):
    """The process is killed here."""


def test_killed_at_any_step_a_whole_one_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation that changes a name is in turn the last one that happens."""
    survived = False
    for fatal in range(20):
        folder = tmp_path / str(fatal)
        folder.mkdir()
        written(folder, 1, 2)
        left = itertools.count(fatal, -1)

        def counted(real: Any, left: Iterator[int] = left) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                if next(left) <= 0:
                    raise Dead
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for owner, name in ((Path, "replace"), (Path, "unlink")):
                patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                written(folder, 3)
                survived = True
            except Dead:
                pass
        found = read_last(folder)
        assert found.content["number"] >= 2
        assert found.torn is None
        written(folder, 4)  # what was left does not disturb the next one
        assert numbers(folder)[LAST] == 4
        assert numbers(folder)[PREVIOUS] in (2, 3)
        assert torch.equal(read_last(folder).content["weights"], torch.full((1000,), 4.0))
        if survived:
            break
    assert survived
    assert fatal >= 3


def torn(path: Path, how: str) -> None:
    whole = path.read_bytes()
    middle, name = len(whole) // 2, whole.rfind(b"PK\x03\x04") + 30  # of the last part
    damaged = {
        "half": whole[:middle],
        "empty": b"",
        "zeros": bytes(len(whole)),
        "a bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "a name": whole[:name] + b"\xb0" + whole[name + 1 :],
    }[how]
    path.write_bytes(damaged)


@pytest.mark.parametrize("how", ["half", "empty", "zeros", "a bit", "a name"])
def test_a_torn_one_is_recognised(tmp_path: Path, how: str) -> None:
    torn(written(tmp_path, 1, 2), how)
    found = read_last(tmp_path)
    assert (found.path.name, found.content["number"]) == (PREVIOUS, 1)
    assert found.torn == tmp_path / LAST
    torn(tmp_path / PREVIOUS, how)
    with pytest.raises(Prod9Error, match=r"last\.ckpt cannot be read: it is torn"):
        read_last(tmp_path)


def test_a_file_that_is_no_checkpoint_counts_as_torn(tmp_path: Path) -> None:
    torch.save([1, 2], written(tmp_path, 1, 2))
    found = read_last(tmp_path)
    assert (found.path.name, found.content["number"]) == (PREVIOUS, 1)
    assert found.torn == tmp_path / LAST


def test_a_missing_last_one_is_no_loss(tmp_path: Path) -> None:
    written(tmp_path, 1, 2).unlink()
    assert exists_in(tmp_path)
    assert read_last(tmp_path).content["number"] == 1


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(Prod9Error, match=r"there is no checkpoint .*last\.ckpt to resume from"):
        read_last(tmp_path)


def test_a_full_disk_costs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 1, 2)

    def full(path: Path, content: object) -> None:
        raise Prod9Error("cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_files, "write_plain", full)
        with pytest.raises(Prod9Error, match="No space left"):
            written(tmp_path, 3)
    assert numbers(tmp_path) == {LAST: 2, PREVIOUS: 1}
