"""Exports of format 2, written by an earlier version of prod9, are still read."""

from pathlib import Path
from typing import Any

import torch

from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.model import load_generator
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer
from prod9.torch_files import digest_of

FOLDER = Path(__file__).with_name("old_exports")


def test_a_tokenizer_and_a_transformer() -> None:
    tokenizer = Tokenizer.load(FOLDER / "tokenizer.pt")
    assert tokenizer.digest == "dfd0757c88730430c108b1aaecedbf4f8360ce5b823f89918d3dd72368910285"
    tokens = tokenizer.encode(torch.linspace(0, 1, 512).view(1, 1, 8, 8, 8))
    assert tokens.shape == (1, 4, 4, 4)
    model = load_generator(FOLDER / "transformer.pt", tokenizer)
    assert model.class_names == ("ball", "box")
    assert model.channels == ("volume",)
    request = SampleRequest((1,), SamplerConfig(steps=2), SlidingWindowConfig(), 0)
    assert model.sample(request).shape == (1, 4, 4, 4)


def test_scans_whose_channels_were_called_classes(make_scan_generator: Any, tmp_path: Path) -> None:
    """The table of the channels was that of the classes, and the names too."""
    model = make_scan_generator()
    weights = model.transformer.state_dict()
    weights["class_embedding.weight"] = weights.pop("channel_embedding.weight")
    names = {"class_names": model.channels, "channels": ()}
    spec = model.spec.model_copy(update=names)
    content = {
        "kind": "prod9-transformer",
        "spec": spec.model_dump(mode="json"),
        "weights": weights,
        "digest": digest_of(spec, weights),
    }
    assert not {"channels", "covariates"} & content["spec"].keys()  # as it was written then
    torch.save(content, tmp_path / "old.pt")
    old = load_generator(tmp_path / "old.pt", model.tokenizer)
    assert (old.channels, old.class_names) == (model.channels, model.channels)
    request = SampleRequest((2, 3), SamplerConfig(steps=2), SlidingWindowConfig(), 0)
    assert torch.equal(old.sample(request), model.sample(request))
