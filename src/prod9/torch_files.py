"""``.pt`` and ``.ckpt`` files: written whole, read without running code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from prod9.errors import Prod9Error
from prod9.files import atomic_write

Network = TypeVar("Network", bound=nn.Module)


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


def fitted(make: Callable[[], Network], weights: object) -> Network:
    """Make a network and load its weights; memory is taken only if names and shapes agree.

    Args:
        make: returns the network, of sizes from the same file.
        weights: tensors by name.

    Raises:
        TypeError, ValueError, RuntimeError: they are no weights, or those of another network.
    """
    if not isinstance(weights, dict):
        raise TypeError("weights must be a dictionary")
    named = cast("dict[str, Any]", weights)
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in make().state_dict().items()}
    if wanted != {name: getattr(value, "shape", None) for name, value in named.items()}:
        raise ValueError("its weights are those of another network")
    network = make()
    network.load_state_dict(named)
    return network


def read_export(path: Path, *, kind: str, made_by: str) -> dict[str, Any]:
    """Read one of prod9's exports, whose ``kind`` is as named.

    Raises:
        Prod9Error: missing, torn, or of another kind; names the command that makes one.
    """
    if not path.is_file():
        raise Prod9Error(f"there is no file {path}; make it with `{made_by}`, or correct the path.")
    content = read_plain(path, f"make it again with `{made_by}`")
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise Prod9Error(f"{path} is not a file of kind {kind}; make one with `{made_by}`.")
    return content
