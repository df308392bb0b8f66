"""The faster of two ways is measured once and remembered."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from prod9.networks.cpu_kernels import library


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROD9_CACHE", str(tmp_path))
    return tmp_path


def fresh() -> dict[library.Product, bool]:
    """Choose as a new process does."""
    return library.choice.__wrapped__()


def test_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fresh()
    assert set(first) == {"output", "weight", "convolution"}

    def never(*ways: object) -> bool:
        raise AssertionError("measured again")

    monkeypatch.setattr(library, "is_faster", never)
    assert fresh() == first


@pytest.mark.parametrize("content", ["", "[]", "{", '{"other machine": {"output": true}}'])
def test_a_damaged_or_foreign_memory_is_measured_anew(cache: Path, content: str) -> None:
    first = fresh()
    (file,) = cache.iterdir()
    file.write_text(content, encoding="utf-8")
    assert set(fresh()) == set(first)
    if "other" in content:
        assert "other machine" in file.read_text(encoding="utf-8")


def test_another_number_of_threads_is_another_machine(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh()
    (file,) = cache.iterdir()
    before = file.read_text(encoding="utf-8")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    fresh()
    assert len(file.read_text(encoding="utf-8")) > len(before)


def test_only_what_is_clearly_faster_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def spends(seconds: float):
        def work() -> None:
            nonlocal now
            now += seconds

        return work

    monkeypatch.setattr(library.time, "perf_counter", lambda: now)
    assert library.is_faster(spends(1.0), spends(1.2))
    assert not library.is_faster(spends(1.0), spends(1.05))
    assert not library.is_faster(spends(1.2), spends(1.0))


def test_is_measured_with_real_tensors_where_fake_ones_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds: list[bool] = []

    def noted(other: Callable[[], object], plain: Callable[[], object]) -> bool:
        kinds.append(isinstance(other(), FakeTensor))
        return True

    monkeypatch.setattr(library, "is_faster", noted)
    with FakeTensorMode():  # as `prod9 plan` estimates memory
        assert all(fresh().values())
        assert isinstance(torch.ones(2), FakeTensor)
    assert kinds == [False] * 3
