"""Tiny networks that many unit tests share."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from scan_files import PREPROCESSING
from torch import nn

from prod9.config import AutoencoderConfig, PreprocessingConfig, TransformerConfig
from prod9.data.brats.layouts import MODALITIES
from prod9.model import CovariateSpec, Model, TransformerSpec, build_transformer
from prod9.networks.transformer import MaskedTransformer
from prod9.tokenizer import Tokenizer, TokenizerSpec, build_autoencoder

MakeTokenizer = Callable[..., Tokenizer]
MakeTransformer = Callable[..., MaskedTransformer]
MakeGenerator = Callable[..., Model]

TRANSFORMER: dict[str, Any] = {
    "hidden_dim": 32,
    "num_blocks": 2,
    "num_heads": 2,
    "token_dim": 8,
    "mlp_ratio": 2.0,
}


def _liven(network: nn.Module, seed: int) -> None:
    """Replace the zeros that blocks start with: an identity would hide most mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if not parameter.detach().any():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Return a maker of untrained tokenizers whose tokens vary from cell to cell."""

    def make(
        seed: int = 0,
        volume_shape: tuple[int, int, int] = (8, 8, 8),
        class_names: tuple[str, ...] = ("ball", "box"),
        **architecture: Any,
    ) -> Tokenizer:
        sizes: dict[str, Any] = {"levels": (5, 4, 3), "num_channels": (8, 8), "norm_num_groups": 4}
        config = AutoencoderConfig(**(sizes | architecture))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            autoencoder = build_autoencoder(config)
        _liven(autoencoder, seed)
        autoencoder.encoder[-1].weight.data *= 4
        spec = TokenizerSpec(
            autoencoder=config,
            dataset_name="organmnist3d",
            volume_shape=volume_shape,
            spacing_mm=(1.0, 1.0, 2.0),
            class_names=class_names,
            config_yaml="seed: 0\n",
        )
        return Tokenizer(spec, autoencoder)

    return make


@pytest.fixture(scope="session")
def transformer_config() -> TransformerConfig:
    """Return the sizes of ``make_transformer``."""
    return TransformerConfig(**TRANSFORMER)


@pytest.fixture(scope="session")
def make_transformer() -> MakeTransformer:
    """Return a maker of untrained transformers in evaluation mode, gates and shifts not zero."""

    def make(
        seed: int = 0,
        levels: tuple[int, ...] = (5, 4, 3),
        num_classes: int = 2,
        num_channels: int = 1,
        coarse: bool = False,
        covariates: Sequence[CovariateSpec] = (),
        grid: tuple[int, int, int] = (4, 4, 4),
        live: bool = True,
        **architecture: Any,
    ) -> MaskedTransformer:
        config = TransformerConfig(**(TRANSFORMER | architecture))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_transformer(
                config,
                levels=levels,
                num_classes=num_classes,
                num_channels=num_channels,
                covariates=covariates,
                coarse=coarse,
                grid=grid,
            )
        if live:
            _liven(network, seed)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def make_generator(
    make_tokenizer: MakeTokenizer,
    make_transformer: MakeTransformer,
    transformer_config: TransformerConfig,
) -> MakeGenerator:
    """Return a maker of untrained generators of two classes, by the sides of their volumes."""

    def make(volume_shape: tuple[int, int, int] = (8, 8, 8)) -> Model:
        tokenizer = make_tokenizer(volume_shape=volume_shape)
        grid = tokenizer.grid()
        spec = TransformerSpec(
            transformer=transformer_config,
            levels=tokenizer.fsq.levels,
            class_names=tokenizer.spec.class_names,
            grid=grid,
            window=grid,
            tokenizer_digest=tokenizer.digest,
            config_yaml="seed: 0\n",
        )
        return Model(tokenizer, make_transformer(grid=grid), spec)

    return make


MakeScanTokenizer = Callable[..., Tokenizer]
MakeScanGenerator = Callable[..., Model]


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

    def make(tokenizer: Tokenizer | None = None, *, coarse_factor: int = 0, **rest: Any) -> Model:
        tokenizer = tokenizer or make_scan_tokenizer(**rest)
        names, levels = tokenizer.spec.class_names, tokenizer.fsq.levels
        sizes: dict[str, Any] = {"levels": levels, "grid": tokenizer.grid()}
        spec = TransformerSpec(
            transformer=transformer_config,
            class_names=("all",),
            channels=names,
            coarse_factor=coarse_factor,
            num_sources=len(names),
            window=(4, 4, 4),
            tokenizer_digest=tokenizer.digest,
            config_yaml="",
            **sizes,
        )
        sizes |= {"num_channels": len(names), "coarse": coarse_factor > 0}
        return Model(tokenizer, make_transformer(num_classes=1, **sizes), spec)

    return make
