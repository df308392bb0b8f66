"""``.pt`` and ``.ckpt`` files: written whole, read without running code."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from prod9 import __version__
from prod9.errors import Prod9Error
from prod9.files import atomic_write

Network = TypeVar("Network", bound=nn.Module)
Spec = TypeVar("Spec", bound=BaseModel)
Result = TypeVar("Result")

_BROKEN = (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What reading a forged export raises."""


def write_plain(path: Path, content: object) -> None:
    """Write tensors and plain data, whole or not at all.

    Raises:
        Prod9Error: the file cannot be written, as on a full disk; an older one stays as it was.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # After a failed write (or Ctrl-C) torch closes its archive, which fails as well.
            raise error.__context__ or error from None


def read_plain(path: Path, remedy: str) -> object:
    """Read a file of plain data and tensors onto the CPU; never runs code from it.

    Raises:
        Prod9Error: torn, or holding more than plain data (ends in ``remedy``); too large for the
            memory.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load fails with many types
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise Prod9Error(
                f"{path} does not fit into memory; end other programs or use a larger machine."
            ) from error
        raise Prod9Error(
            f"{path} cannot be read: it is torn, no PyTorch file, or holds more than plain data "
            f"({type(error).__name__}); {remedy}."
        ) from error


def fitted(make: Callable[[], Network], weights: Mapping[str, Tensor]) -> Network:
    """Make a network and load its weights; memory is taken only if names and shapes agree.

    Raises:
        AttributeError, ValueError: they are no weights, or those of another network.
    """
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in make().state_dict().items()}
    if wanted != {name: value.shape for name, value in weights.items()}:
        raise ValueError("its weights are those of another network")
    network = make()
    network.load_state_dict(weights)
    return network


def digest_of(spec: BaseModel, weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over the spec and every weight's name, type, shape and bytes."""
    sha = hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].detach().cpu().numpy()
        sha.update(f"{name} {weight.dtype} {weight.shape}".encode())
        sha.update(weight.tobytes())  # C order, whatever the memory format
    return sha.hexdigest()


def write_export(path: Path, kind: str, spec: BaseModel, weights: Mapping[str, Tensor]) -> None:
    """Write a spec, its weights and their digest as plain data, whole or not at all."""
    content = {
        "kind": f"prod9-{kind}",
        "spec": spec.model_dump(mode="json"),
        "weights": {name: weight.detach().cpu() for name, weight in weights.items()},
        "digest": digest_of(spec, weights),
    }
    write_plain(path, content)


def read_export(
    path: Path,
    kind: str,
    spec_type: type[Spec],
    build: Callable[[Spec, dict[str, Tensor]], Result],
    made_by: str,
) -> Result:
    """Return what ``build`` makes of the spec and the weights of an export.

    Raises:
        Prod9Error: the file is missing, torn, of another kind or version, or its content does not
            match its digest; names ``made_by``, the command that makes one.
    """
    if not path.is_file():
        raise Prod9Error(f"there is no file {path}; make it with `{made_by}`, or correct the path.")
    content: Any = read_plain(path, f"make it again with `{made_by}`")
    if not isinstance(content, dict) or content.get("kind") != f"prod9-{kind}":
        raise Prod9Error(f"{path} is not a file of kind prod9-{kind}; make one with `{made_by}`.")

    def weights() -> dict[str, Tensor]:
        return content["weights"]

    remedy = f"make it again with `{made_by}`"
    return verified(path, kind, content, weights, spec_type, build, remedy)


def verified(
    path: Path,
    kind: str,
    content: Mapping[str, Any],
    read_weights: Callable[[], dict[str, Tensor]],
    spec_type: type[Spec],
    build: Callable[[Spec, dict[str, Tensor]], Result],
    remedy: str,
) -> Result:
    """Return what ``build`` makes of ``content["spec"]`` and the weights; ``path`` holds them.

    Raises:
        Prod9Error: another kind or version, or it does not match ``content["digest"]``; ends in
            ``remedy``.
    """
    try:
        spec = spec_type.model_validate_json(json.dumps(content["spec"]))
        weights = read_weights()
        result = build(spec, weights)
        digest = digest_of(spec, weights)
    except _BROKEN as error:
        raise Prod9Error(
            f"{path} is not a {kind} that prod9 {__version__} can read ({type(error).__name__}); "
            f"{remedy}."
        ) from error
    if digest != content.get("digest"):
        raise Prod9Error(
            f"{path} is damaged: its weights do not match its digest; copy it again from where it "
            f"came, or {remedy}."
        )
    return result
