"""A tiny model, and its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from model_folder_samples import CONFIG_YAML, RECORDED, SUBJECT

from prod9.inference.model import Model


@pytest.fixture
def named_model(make_generator: Callable[..., Any]) -> Model:
    """A model with a subject's name and a path of a machine in its specs."""
    network = make_generator()
    named = {"train_subjects": (SUBJECT,), "config_yaml": CONFIG_YAML}
    tokenizer = type(network.tokenizer)(
        network.tokenizer.spec.model_copy(update=named), network.tokenizer.autoencoder
    )
    spec = network.spec.model_copy(update={**named, "tokenizer_digest": tokenizer.digest})
    return Model.of(type(network)(tokenizer, network.transformer, spec), RECORDED)


@pytest.fixture
def model_folder(named_model: Model, tmp_path: Path) -> Path:
    named_model.save(tmp_path / "model")
    return tmp_path / "model"
