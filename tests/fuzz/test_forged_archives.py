"""``.pt`` files that show Python other parts than PyTorch: judged as PyTorch would read them."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_targets import pickle_of, tokenizer_file, with_pickle

from prod9 import torch_files
from prod9.errors import Prod9Error
from prod9.torch_files import read_plain

HARMLESS = pickle.dumps({"kind": "harmless"}, protocol=2)


class _Asks:
    """A pickle that makes a large thing of a few bytes."""

    def __reduce__(self) -> object:
        return bytearray, (10**6,)


ASKS = pickle.dumps(_Asks(), protocol=2)


def refused(path: Path) -> None:
    """PyTorch would read what was asked for; prod9 does not let it."""
    assert len(torch.load(path, weights_only=True)) == 10**6
    with pytest.raises(Prod9Error, match=r"more than plain data \(ValueError\)"):
        read_plain(path, "x")


def test_plain_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    content = {"a": torch.arange(6).view(2, 3), "b": [torch.zeros(3).half(), "text", 1.5]}
    torch.save(content, path)
    found = read_plain(path, "x")
    assert isinstance(found, dict)
    assert torch.equal(found["a"], content["a"])
    path.write_bytes(with_pickle(tokenizer_file(), HARMLESS))
    assert read_plain(path, "x") == {"kind": "harmless"}


def renamed(data: bytes, root: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(f"{root}/{name.partition('/')[2]}", old.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize("root", ["archive", "My Brain.v2", "\u8111", "gr\u00fcn"])
def test_the_folder_inside_has_the_file_s_first_name(tmp_path: Path, root: str) -> None:
    path, buffer = tmp_path / f"{root}.pt", io.BytesIO()
    torch.save({"x": torch.arange(3)}, buffer)
    path.write_bytes(renamed(buffer.getvalue(), root))
    for _ in range(2):  # once as older versions of PyTorch name it, once as this one
        assert torch.load(path, weights_only=True)["x"].tolist() == [0, 1, 2]
        found = read_plain(path, "x")
        assert isinstance(found, dict)
        assert found["x"].tolist() == [0, 1, 2]
        torch.save({"x": torch.arange(3)}, path)


def test_a_content_in_other_letters(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with (
        zipfile.ZipFile(io.BytesIO(tokenizer_file())) as old,
        zipfile.ZipFile(path, "w") as new,
    ):
        for name in old.namelist():
            root, _, rest = name.partition("/")
            if rest == "data.pkl":
                new.writestr(f"{root}/DATA.PKL", ASKS)
                new.writestr(f"{root}/x/data.pkl", HARMLESS)
            else:
                new.writestr(name, old.read(name))
    refused(path)


def test_a_bare_pickle_in_front(tmp_path: Path) -> None:
    path, bare = tmp_path / "x.pt", io.BytesIO()
    torch.save(_Asks(), bare, _use_new_zipfile_serialization=False)
    path.write_bytes(bare.getvalue() + with_pickle(tokenizer_file(), HARMLESS))
    assert zipfile.is_zipfile(path)
    refused(path)


def parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Return an archive's parts, the list of them, and its end."""
    length, start = struct.unpack("<LL", data[-10:-2])
    return data[:start], data[start : start + length], data[-22:]


def test_two_lists_of_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    # PyTorch takes the list that the end points to, Python the one before the end.
    first, first_list, end = parts(with_pickle(tokenizer_file(), ASKS))
    second, second_list, _ = parts(with_pickle(tokenizer_file(), HARMLESS))
    moved, place = bytearray(second_list), 0
    while place < len(moved):
        name, extra, comment = struct.unpack_from("<HHH", moved, place + 28)
        (offset,) = struct.unpack_from("<L", moved, place + 42)
        struct.pack_into("<L", moved, place + 42, offset + len(first) - len(first_list))
        place += 46 + name + extra + comment
    end = end[:-6] + struct.pack("<LH", len(first) + len(second), 0)
    path.write_bytes(first + second + first_list + bytes(moved) + end)
    with zipfile.ZipFile(path) as archive:
        assert pickle_of(path.read_bytes()) == HARMLESS
        assert archive.testzip() is None
    refused(path)


def test_a_file_that_does_not_fit_is_not_called_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pt"
    torch.save({"x": torch.zeros(3)}, path)
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8")):

        def load(*_: object, error: Exception = error, **__: object) -> object:
            raise error

        monkeypatch.setattr(torch_files.torch, "load", load)
        with pytest.raises(Prod9Error, match="does not fit into memory"):
            read_plain(path, "x")


def test_the_same_open_file_is_judged_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(with_pickle(tokenizer_file(), HARMLESS))
    judge = torch_files.require_plain

    def judge_and_swap(file: io.BufferedReader) -> None:
        judge(file)
        other = tmp_path / "other"
        other.write_bytes(with_pickle(tokenizer_file(), ASKS))
        other.replace(path)

    monkeypatch.setattr(torch_files, "require_plain", judge_and_swap)
    assert read_plain(path, "x") == {"kind": "harmless"}


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path, buffer = tmp_path / "x.pt", io.BytesIO()
    torch.save({"x": torch.from_numpy(np.arange(5))}, buffer)
    whole = buffer.getvalue()
    for length in (0, 3, 4, 21, 22, 60, 98, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(Prod9Error, match="it is torn"):
            read_plain(path, "x")
