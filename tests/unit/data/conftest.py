"""What tests of drawn data share."""

from collections.abc import Generator

import pytest
import torch


@pytest.fixture
def two_threads() -> Generator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)
