"""Files of plain data are whole or not there."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.build.trainer import WholeCheckpoints
from prod9.errors import UserError
from prod9.plain import read_plain, write_plain


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_plain(tmp_path / "a.pt", {"x": torch.arange(3), "text": "y"})
    content = read_plain(tmp_path / "a.pt", "")
    assert isinstance(content, dict)
    assert content["text"] == "y"
    assert torch.equal(content["x"], torch.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    WholeCheckpoints().save_checkpoint(content, str(path))


@pytest.mark.parametrize("write", [write_plain, save_checkpoint])
def test_a_full_disk_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    path = tmp_path / "last.ckpt"
    write_plain(path, {"old": 1})

    def full(self: Path, data: Any) -> int:
        with self.open("wb") as file:
            file.write(bytes(data)[:10])
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device") as caught:
        write(path, {"new": 2})
    assert str(path.parent) in str(caught.value)
    assert read_plain(path, "") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
