"""Two volumes learned by heart: reconstructed, and their tokens drawn back exactly."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from prod9.config import SamplerConfig, Stage2Config
from prod9.data.array_dataset import ArrayDataset
from prod9.data.brain_region_table import CLASS_NAMES
from prod9.data.brain_regions import RegionSampler, Variation
from prod9.data.tokens.store import TokenBatch
from prod9.metrics.psnr import psnr
from prod9.model import build_transformer
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.outpainting import draw_tokens
from prod9.tokenizer import Tokenizer
from prod9.training.stage1 import tokenizer_of
from prod9.training.stage2_module import Stage2Module
from prod9.training.trainer import quieten_lightning

pytestmark = pytest.mark.slow

LABELS = torch.tensor([0, 1])
QUICK = {
    "optimizer": {"learning_rate": 3e-3, "weight_decay": 0.0},
    "scheduler": {"warmup_steps": 20},
    "stability": {"ema_decay": 0.9},
}


@pytest.fixture(scope="module")
def volumes() -> Tensor:
    """Two brain regions of 28^3, without the noise that nobody should learn by heart."""
    sampler = RegionSampler(28, Variation(noise=0.0))
    return sampler(LABELS, torch.Generator().manual_seed(0)).float()[:, None] / 255


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def fit(module: pl.LightningModule, batch: Any, steps: int) -> None:
    quieten_lightning()
    torch.manual_seed(0)
    data = ArrayDataset("two", volumes.numpy(), classes=LABELS.numpy(), class_names=CLASS_NAMES)
    return tokenizer_of(module, data)


def test_two_volumes_are_reconstructed(
    tokenizer: Tokenizer, volumes: Tensor, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path / "tokenizer.pt")
    loaded = Tokenizer.load(tmp_path / "tokenizer.pt")
    output = loaded.decode(loaded.encode(volumes), (28, 28, 28))
    assert float(psnr(output, volumes).min()) > 35


@pytest.mark.parametrize("head", ["full", "factorized"])
def test_their_tokens_are_drawn_back(tokenizer: Tokenizer, volumes: Tensor, head: Any) -> None:
    tokens = tokenizer.encode(volumes)
    assert (tokens[0] != tokens[1]).float().mean() > 0.5
    config = Stage2Config.model_validate(
        {
            "output_dir": "unused",
            "autoencoder_path": "unused.pt",
            "data": {"dataset_name": "brainregionmnist3d"},
            "model": {
                "transformer": {
                    "hidden_dim": 96,
                    "num_blocks": 2,
                    "num_heads": 2,
                    "token_dim": 32,
                    "head": head,
                }
            },
            "loss": {"label_smoothing": 0.0, "condition_dropout": 0.0},
            "training": QUICK,
        }
    )
    torch.manual_seed(0)
    transformer: MaskedTransformer = build_transformer(
        config.model.transformer,
        levels=tokenizer.fsq.levels,
        num_classes=2,
        num_channels=1,
        grid=(7, 7, 7),
    )
    module = Stage2Module(config, transformer)
    fit(module, TokenBatch(tokens, LABELS, ["a", "b"]), 450)
    for order in ("confidence", "halton"):
        for seed, steps in ((0, 12), (1, 4)):
            settings = SamplerConfig(order=order, steps=steps, guidance_scale=1.0, temperature=0.5)
            stream = torch.Generator().manual_seed(seed)
            empty = torch.full_like(tokens, transformer.mask_id)
            condition = Condition.of(LABELS, 1)
            drawn = draw_tokens(
                module.ema.network, condition, empty, settings, stream, window=(7, 7, 7)
            )
            assert torch.equal(drawn, tokens)
