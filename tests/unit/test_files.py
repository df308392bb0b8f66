"""Whether a file is on the disk when its writer goes on."""

import os
from pathlib import Path

import pytest

from prod9.files import atomic_write
from prod9.inference.generate import GeneratedSet


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that were waited for."""
    found: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: found.append(os.fstat(handle).st_size))
    return found


@pytest.mark.parametrize("durable", [True, False])
def test_only_a_durable_file_waits_for_the_disk(
    tmp_path: Path, waits: list[int], durable: bool
) -> None:
    with atomic_write(tmp_path / "file", durable=durable) as temporary:
        temporary.write_bytes(b"four")
    assert (tmp_path / "file").read_bytes() == b"four"
    assert waits == ([4] if durable else [])


def test_a_complete_set_is_on_the_disk(tmp_path: Path, waits: list[int]) -> None:
    made = GeneratedSet(tmp_path, {"classes": ["one"], "batch_size": 2, "seed": 0}, [0, 0, 0])
    for size, path in enumerate(made.files, 1):
        path.write_bytes(b"x" * size)
    made.finish()
    assert waits[:3] == [1, 2, 3]  # the manifest comes after them
