"""What must not depend on the machine's number of cores: torch's operations, unsplit."""

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Generator[int]:
    """Keep torch from splitting an operation; give the number of threads it would have used.

    How an operation is split decides its last bits. Parallel work is left to a pool over whole
    operations.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
