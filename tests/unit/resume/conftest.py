from collections.abc import Callable

import pytest

from prod9.model import Model


@pytest.fixture(scope="module")
def generator(make_generator: Callable[..., Model]) -> Model:
    return make_generator((7, 8, 6))
