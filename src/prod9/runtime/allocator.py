"""The C library's allocator: keep freed memory for the next tensor."""

import ctypes
import platform

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -3, -1, -8  # malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks of up to 1 GiB; return whether it does.

    By default every large tensor is mapped anew and its pages are cleared by the kernel, which
    takes a quarter of a CPU training step. In return the process keeps its peak until it ends.
    Does nothing with another C library (macOS, Windows, musl).
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    # One arena: every other thread would have one of its own, which gives back what it frees.
    settings = {_M_MMAP_THRESHOLD: 1 << 30, _M_TRIM_THRESHOLD: 2**31 - 1, _M_ARENA_MAX: 1}
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, value) == 1 for name, value in settings.items())
