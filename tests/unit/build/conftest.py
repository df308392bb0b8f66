"""Untrained models of scans."""

from collections.abc import Callable
from typing import Any

import pytest
from scan_files import PREPROCESSING

from prod9.config import PreprocessingConfig, TransformerConfig
from prod9.data.brats import MODALITIES
from prod9.generator import Generator, TransformerSpec
from prod9.tokenizer import Tokenizer

MakeScanTokenizer = Callable[..., Tokenizer]
MakeScanGenerator = Callable[..., Generator]


@pytest.fixture(scope="session")
def make_scan_tokenizer(make_tokenizer: Callable[..., Tokenizer]) -> MakeScanTokenizer:
    """Return a maker of untrained tokenizers that were told how to read scans."""

    def make(preprocessing: PreprocessingConfig = PREPROCESSING, **rest: Any) -> Tokenizer:
        bare = make_tokenizer(class_names=MODALITIES, **({"volume_shape": (12, 12, 12)} | rest))
        spec = {"dataset_name": "brats", "preprocessing": preprocessing}
        return Tokenizer(bare.spec.model_copy(update=spec), bare.autoencoder)

    return make


@pytest.fixture(scope="session")
def make_scan_generator(
    make_scan_tokenizer: MakeScanTokenizer,
    make_transformer: Callable[..., Any],
    transformer_config: TransformerConfig,
) -> MakeScanGenerator:
    """Return a maker of untrained models of scans: cells of 2 voxels, windows of 4 cells."""

    def make(tokenizer: Tokenizer | None = None, **rest: Any) -> Generator:
        tokenizer = tokenizer or make_scan_tokenizer(**rest)
        names, levels = tokenizer.spec.class_names, tokenizer.fsq.levels
        sizes: dict[str, Any] = {"levels": levels, "num_sources": len(names)}
        sizes["grid"] = tokenizer.grid()
        spec = TransformerSpec(
            transformer=transformer_config,
            class_names=names,
            window=(4, 4, 4),
            tokenizer_digest=tokenizer.digest,
            config_yaml="",
            **sizes,
        )
        return Generator(tokenizer, make_transformer(num_classes=len(names), **sizes), spec)

    return make
