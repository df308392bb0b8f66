from collections.abc import Callable

import pytest

from prod9.generator import Generator


@pytest.fixture(scope="module")
def generator(make_generator: Callable[..., Generator]) -> Generator:
    return make_generator((7, 8, 6))
