from typing import Any

import pytest

from prod9.config.model import TransformerConfig
from prod9.generator import Generator, TransformerSpec


@pytest.fixture(scope="module")
def generator(
    make_tokenizer: Any, make_transformer: Any, transformer_config: TransformerConfig
) -> Generator:
    tokenizer = make_tokenizer(volume_shape=(7, 8, 6))
    spec = TransformerSpec(
        transformer=transformer_config,
        levels=tokenizer.fsq.levels,
        class_names=("ball", "box"),
        grid=(4, 4, 3),
        window=(4, 4, 3),
        tokenizer_digest=tokenizer.digest,
        config_yaml="seed: 0\n",
    )
    return Generator(tokenizer, make_transformer(grid=(4, 4, 3)), spec)
