"""Whatever bit of a checksummed array flips, it is not taken for the array."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from prod9.errors import Prod9Error
from prod9.evaluation.work_cache import read_checksummed, write_checksummed

ARRAY = np.array([[1.5, np.nan], [-0.0, 3.0]])


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.npy"
    write_checksummed(path, ARRAY)
    assert read_checksummed(path).tobytes() == ARRAY.tobytes()  # type: ignore[union-attr]
    assert np.load(path).tobytes() == ARRAY.tobytes()
    content = path.read_bytes()
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()
    assert [each.name for each in path.parent.iterdir()] == ["a.npy"]


def test_no_byte_can_change_unseen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.npy"
    write_checksummed(path, ARRAY)
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert read_checksummed(path) is None
    assert capsys.readouterr().err.count("a.npy is damaged") == len(content)


@pytest.mark.parametrize("left", [0, 1, 32, 128, -32, -1])
def test_a_file_that_was_cut_is_no_array(
    tmp_path: Path, left: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.npy"
    write_checksummed(path, ARRAY)
    path.write_bytes(path.read_bytes()[:left])
    assert read_checksummed(path) is None
    assert "damaged" in capsys.readouterr().err


def test_a_digest_does_not_make_an_array(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(b"no array" + hashlib.sha256(b"no array").digest())
    assert read_checksummed(path) is None


def test_what_is_not_there_is_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert read_checksummed(tmp_path / "none.npy") is None
    assert read_checksummed(tmp_path / "file" / "below.npy") is None
    assert capsys.readouterr().err == ""
    with pytest.raises(Prod9Error, match="cannot write"):
        write_checksummed(tmp_path / "file" / "below.npy", ARRAY)
