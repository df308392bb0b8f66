"""Copies, for others, of what training left: no subject's name, no path of this machine."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import yaml

from prod9.config.dataset import DatasetDescription
from prod9.model import Model, TransformerSpec
from prod9.results.schema import Evaluation
from prod9.tokenizer import Tokenizer, TokenizerSpec

Spec = TypeVar("Spec", TokenizerSpec, TransformerSpec)
_PATH = re.compile(r"(?:(?<=[\s'\"(=])|^)(?:[A-Za-z]:)?[\\/][^\s'\",;)]+")


def tokenizer_without_names(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer with the same network and a spec without names; its digest may differ."""
    return Tokenizer(_spec_without_names(tokenizer.spec), tokenizer.autoencoder)


def model_without_names(model: Model) -> Model:
    """Return a model with the same networks and specs without names."""
    tokenizer = tokenizer_without_names(model.tokenizer)
    spec = _spec_without_names(model.spec)
    spec = spec.model_copy(update={"tokenizer_digest": tokenizer.digest})
    return Model(tokenizer, model.transformer, spec)


def description_without_names(description: DatasetDescription) -> DatasetDescription:
    """Return a description of channels and classes alone."""
    return description.model_copy(update={"scans": {}, "root": Path()})


def metrics_without_names(metrics: Evaluation) -> Evaluation:
    """Return the figures without the closest pairs, the configuration and the command line."""
    values: dict[str, Any] = _last_parts(metrics.model_dump(mode="json"))
    values["provenance"] = {
        key: value
        for key, value in values["provenance"].items()
        if key not in ("command", "config")
    }
    if values["generation"] and values["generation"]["privacy"]:
        values["generation"]["privacy"]["closest"] = []
    return Evaluation.model_validate(values)


def _spec_without_names(spec: Spec) -> Spec:
    config = yaml.safe_load(spec.config_yaml)
    plain = _last_parts(config)
    text = spec.config_yaml if plain == config else yaml.safe_dump(plain, sort_keys=False)
    return spec.model_copy(update={"train_subjects": (), "config_yaml": text})


def _last_parts(value: Any) -> Any:
    """Reduce every absolute path in plain data to its last part."""
    match value:
        case dict():
            return {key: _last_parts(each) for key, each in value.items()}
        case list():
            return [_last_parts(each) for each in value]
        case str() if PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute():
            return PureWindowsPath(value).name  # takes both slashes
        case str():
            return _PATH.sub(lambda found: PureWindowsPath(found[0]).name, value)
        case _:
            return value
