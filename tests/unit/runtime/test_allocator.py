import platform
import subprocess
import sys

import pytest

from prod9.runtime import allocator
from prod9.runtime.allocator import keep_freed_memory

SCRIPT = """
import resource, sys, torch
from torch import nn
from prod9.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers = [nn.Conv3d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv3d(8, 8, 3, padding=1), nn.SiLU()]
network, x = nn.Sequential(*layers), torch.rand(2, 1, 64, 64, 64)
def step():
    network(x).sum().backward()
for _ in range(5):
    step()
# Some kernels count page faults some thousands at a time: single steps may seem to have none.
before = faults()
for _ in range(16):
    step()
print((faults() - before) // 16)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    def pages(argument: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, argument], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    # Each activation is 16 MiB, 4,096 pages of 4 KiB or 8 of 2 MiB, and there are ten or more.
    given_back = pages("give back")
    assert given_back >= 80
    assert pages("keep") < given_back / 10


def test_does_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: object) -> object:
        raise AssertionError("no C library is touched")

    monkeypatch.setattr(allocator.ctypes, "CDLL", missing)
    monkeypatch.setattr(allocator.platform, "system", lambda: "Darwin")
    assert not keep_freed_memory()
    monkeypatch.setattr(allocator.platform, "system", lambda: "Linux")
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("musl", "1.2"))
    assert not keep_freed_memory()
