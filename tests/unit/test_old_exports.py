"""Exports of format 2, written by an earlier version of prod9, are still read."""

from pathlib import Path

import torch

from prod9.config import SamplerConfig
from prod9.model import load_generator
from prod9.tokenizer import Tokenizer

FOLDER = Path(__file__).with_name("old_exports")


def test_a_tokenizer_and_a_transformer() -> None:
    tokenizer = Tokenizer.load(FOLDER / "tokenizer.pt")
    assert tokenizer.digest == "dfd0757c88730430c108b1aaecedbf4f8360ce5b823f89918d3dd72368910285"
    tokens = tokenizer.encode(torch.linspace(0, 1, 512).view(1, 1, 8, 8, 8))
    assert tokens.shape == (1, 4, 4, 4)
    model = load_generator(FOLDER / "transformer.pt", tokenizer)
    assert model.class_names == ("ball", "box")
    drawn = next(model.generate(torch.tensor([1]), SamplerConfig(steps=2), 0, batch_size=1))
    assert drawn[1].shape == (1, 1, 8, 8, 8)
