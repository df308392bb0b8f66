"""A trained model as a folder of open formats: ``config.json`` and weights as safetensors.

``config.json`` is written first, as the record of what prod9 writes there, and again when all is
there: what a killed command leaves is no model, and is known to be prod9's.
"""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from prod9 import __version__
from prod9.config.dataset import DATASET_YAML
from prod9.errors import Prod9Error
from prod9.files import atomic_write, write_text
from prod9.inference.extras import CARD, METRICS, REPORT, Extras, texts_of
from prod9.inference.half_precision import model_in_half, tokenizer_in_half
from prod9.inference.recorded import Recorded
from prod9.inference.without_names import (
    model_without_names,
    tokenizer_without_names,
)
from prod9.model import Model, TransformerSpec
from prod9.model import network_of as transformer_of
from prod9.own_files import read_record, refuse_foreign, remove_own
from prod9.tokenizer import Tokenizer, TokenizerSpec
from prod9.tokenizer import network_of as autoencoder_of
from prod9.torch_files import digest_of, verified

FORMAT = 1
CONFIG = "config.json"
FILES = (
    CONFIG,
    "tokenizer.safetensors",
    "transformer.safetensors",
    *(DATASET_YAML, METRICS, REPORT, CARD),
)
"""Every file that a model folder can hold; none of them is code."""
_KINDS = {"prod9-model", "prod9-tokenizer"}
_UNFINISHED = "prod9-unfinished"
_KEYS = {"kind", "format_version", "prod9", "files"}
_REMEDY = "save the model again"


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a ``config.json``, and so claims to be a model."""
    return (path / CONFIG).is_file()


def save_folder(
    network: Model | Tokenizer,
    recorded: Recorded,
    folder: Path,
    extras: Extras,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model, or a tokenizer alone, with the settings of its use.

    Args:
        network: what was trained.
        recorded: settings that its user gets when none are given.
        folder: made where it is not there.
        extras: see :class:`Extras`.
        overwrite: replace a model that is there; all other files in the folder stay.

    Raises:
        Prod9Error: the folder holds a model, or files under these names that prod9 did not write;
            it cannot be written; one of the extras cannot be read, or is of another model.
    """
    trained = network
    if not extras.get("subjects"):
        is_model = isinstance(network, Model)
        network = model_without_names(network) if is_model else tokenizer_without_names(network)
    half = extras.get("half", False)
    if half:
        rounded = model_in_half if isinstance(network, Model) else tokenizer_in_half
        network = rounded(network)  # pyright: ignore[reportArgumentType]
    texts = texts_of(trained, network, extras)
    tokenizer = network.tokenizer if isinstance(network, Model) else network
    parts: dict[str, tuple[TokenizerSpec | TransformerSpec, dict[str, Tensor]]] = {
        "tokenizer": (tokenizer.spec, tokenizer.autoencoder.state_dict())
    }
    if isinstance(network, Model):
        parts["transformer"] = (network.spec, network.transformer.state_dict())
    record: dict[str, Any] = {
        "kind": _UNFINISHED,
        "format_version": FORMAT,
        "prod9": __version__,
        "files": [
            *(CONFIG, *(f"{name}.safetensors" for name in parts), *texts),
        ],
    }
    _claim(folder, record, overwrite=overwrite)
    for name, (_, weights) in parts.items():
        _write_weights(folder / f"{name}.safetensors", weights, half=half)
    for name, text in texts.items():
        write_text(folder / name, text)
    record |= {"kind": "prod9-model" if len(parts) > 1 else "prod9-tokenizer"}
    record |= {"settings": recorded.plain()}
    for name, (spec, weights) in parts.items():
        record[name] = {
            "spec": spec.model_dump(mode="json"),
            "digest": digest_of(spec, weights),
        }
    _write_record(folder, record)


def read_folder(folder: Path, device: str) -> tuple[Model | Tokenizer, Recorded]:
    """Read what :func:`save_folder` wrote; never runs code from it.

    Raises:
        Prod9Error: a file is missing, damaged, foreign, or of a newer format; weights that do not
            match their digest; a transformer of another tokenizer.
    """
    path = folder / CONFIG
    record = _read_config(path)
    kept = Recorded.read(record.get("settings", {}))

    def weights_of(name: str) -> dict[str, Tensor]:
        return _read_weights(folder / f"{name}.safetensors")

    spec, autoencoder = verified(
        folder / "tokenizer.safetensors",
        "tokenizer",
        record.get("tokenizer", {}),
        lambda: weights_of("tokenizer"),
        TokenizerSpec,
        autoencoder_of,
        _REMEDY,
    )
    tokenizer = Tokenizer(spec, autoencoder).to(device)
    if record["kind"] == "prod9-tokenizer":
        return tokenizer, kept
    spec, transformer = verified(
        folder / "transformer.safetensors",
        "transformer",
        record.get("transformer", {}),
        lambda: weights_of("transformer"),
        TransformerSpec,
        transformer_of,
        _REMEDY,
    )
    if spec.tokenizer_digest != tokenizer.digest:
        raise Prod9Error(
            f"{folder} holds a transformer of the tokenizer {spec.tokenizer_digest[:12]} and the "
            f"tokenizer {tokenizer.digest[:12]}; copy all files again from where they came."
        )
    return Model(tokenizer, transformer.eval().requires_grad_(False).to(device), spec), kept


def _claim(folder: Path, record: dict[str, Any], *, overwrite: bool) -> None:
    """Remove the model that is there, if that is wanted, and mark the files as prod9's."""
    old = read_record(folder / CONFIG, _KEYS) or {}
    ours = {_UNFINISHED, *_KINDS}
    listed = old.get("files") if old.get("kind") in ours else None
    names = cast("list[Any]", listed) if isinstance(listed, list) else []
    own = {*FILES} & {name for name in names if isinstance(name, str)}  # no other path is removed
    refuse_foreign(folder / name for name in record["files"] if name not in own)
    if own and old["kind"] != _UNFINISHED and not overwrite:
        raise Prod9Error(
            f"{folder} already holds a model; replace it (--overwrite), or choose another folder."
        )
    _write_record(folder, {**record, "files": [n for n in FILES if n in {*own, *record["files"]}]})
    remove_own(folder, [folder / name for name in FILES if name in own and name != CONFIG])


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    write_text(folder / CONFIG, json.dumps(record, indent=2) + "\n")


def _write_weights(path: Path, weights: dict[str, Tensor], *, half: bool) -> None:
    # Copies: the format knows neither strides nor tensors that share memory.
    copies = {name: w.detach().cpu().contiguous().clone() for name, w in weights.items()}
    if half:
        copies = {name: w.half() if w.is_floating_point() else w for name, w in copies.items()}
    with atomic_write(path) as temporary:
        try:
            save_file(copies, temporary, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        shutil.copymode(path.with_name(CONFIG), temporary)  # else its owner alone could read it


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise Prod9Error(f"there is no file {path}; copy it from where the folder came.")
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise Prod9Error(
            f"{path} cannot be read: it is torn, or not a safetensors file; copy it again from "
            "where it came."
        ) from error
    # What is stored as fp16 is computed with as fp32.
    return {name: w.float() if w.dtype == torch.float16 else w for name, w in found.items()}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise Prod9Error(f"there is no file {path}; name the folder of a saved model.")
    record = read_record(path, _KEYS)
    kind = str(record["kind"]) if record else ""
    if record is None or kind not in {_UNFINISHED, *_KINDS}:
        raise Prod9Error(
            f"{path} is damaged, or not of a model of prod9; copy it again, or name another folder."
        )
    if kind == _UNFINISHED:
        raise Prod9Error(f"{path.parent} was not saved to the end; {_REMEDY}.")
    if record["format_version"] != FORMAT:
        raise Prod9Error(
            f"{path} has the format {record['format_version']} of prod9 {record['prod9']}, and "
            f"prod9 {__version__} reads format {FORMAT}; install prod9 {record['prod9']} or newer."
        )
    return record
