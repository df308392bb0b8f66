"""Data of the tests that train within a second."""

from collections.abc import Iterator

import pytest
from toy_runs import use_toy_data


@pytest.fixture(scope="module")
def toy_data() -> Iterator[None]:
    """Let every MedMNIST set be the toy one."""
    with pytest.MonkeyPatch.context() as patch:
        use_toy_data(patch)
        yield
