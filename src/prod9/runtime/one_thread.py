"""Results that do not depend on the number of cores: operations that are not split."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Generator[int]:
    """Compute each operation in one thread; give the number of threads that torch had before.

    How an operation is split over threads decides its last bits. Work can still be parallel over
    whole operations.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
