"""Writing ``.pt`` files whole, and reading them without unpickling code."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.pickles import require_plain

Network = TypeVar("Network", bound=nn.Module)


def write_plain(path: Path, content: object) -> None:
    """Write tensors and plain data, whole or not at all.

    Raises:
        Prod9Error: the file cannot be written, as on a full disk; an older one stays as it was.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        tolerant = _Tolerant(file)
        try:
            torch.save(content, cast("IO[bytes]", tolerant))
        except RuntimeError as error:
            # An interrupt between two lines of Python reaches the writer, which covers it up.
            covered = error.__context__
            if covered is not None and not isinstance(covered, Exception):
                raise covered from None
            raise
        if tolerant.failed is not None:
            raise tolerant.failed


class _Tolerant:
    """Takes all that torch's writer has for a file, and remembers why the file did not.

    The writer, should a call fail, tells of a RuntimeError without a cause.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.failed: BaseException | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Write ``data``, or nothing after a failure; either way all of it is said to be."""
        if self.failed is None:
            try:
                self.file.write(data)
            except BaseException as error:  # an interrupt, too
                self.failed = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Leave it to whoever closes the file."""


def read_plain(path: Path, remedy: str) -> object:
    """Read a ``.pt`` or ``.ckpt`` file of plain data and tensors.

    Raises:
        Prod9Error: torn, or holding more than plain data (ends in ``remedy``); too large for the
            memory.
    """
    try:
        with path.open("rb") as file:
            require_plain(file)
            content = torch.load(file, map_location="cpu", weights_only=True)
        _require_real(content)
    # torch.load fails with many types, depending on where a file is torn.
    except Exception as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise Prod9Error(
                f"{path} does not fit into memory; end other programs or use a larger machine."
            ) from error
        raise Prod9Error(
            f"{path} cannot be read: it is torn, or holds more than plain data "
            f"({type(error).__name__}); {remedy}."
        ) from error
    return content


def _require_real(content: object) -> None:
    """Refuse tensors that show the same few elements often: copied, they could be of any size.

    Raises:
        ValueError: there is one.
    """
    waiting, seen = [content], set[int]()
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, Tensor):
            if entry.numel() * entry.element_size() > entry.untyped_storage().nbytes():
                raise ValueError("a tensor has more elements than its storage")
        elif isinstance(entry, dict | list | tuple | set) and id(entry) not in seen:
            seen.add(id(entry))  # a pickle can put a list into itself
            inner = cast("dict[Any, Any] | list[Any]", entry)
            waiting += inner.values() if isinstance(inner, dict) else inner


def fitted(make: Callable[[], Network], weights: object) -> Network:
    """Make a network and give it weights; its sizes are compared with theirs before it is made.

    So a forged size costs no memory: the weights lie in a file that is as large.

    Args:
        make: Returns the network, of sizes from the same file.
        weights: By name.

    Raises:
        TypeError, ValueError: they are no weights, or those of another network.
    """
    if not isinstance(weights, dict):
        raise TypeError("weights must be a dictionary")
    named = cast("dict[Any, Any]", weights)
    if not all(isinstance(name, str) for name in named):
        raise TypeError("weights must have names")
    with torch.device("meta"):
        wanted = {name: value.shape for name, value in make().state_dict().items()}
    if wanted != {name: getattr(value, "shape", None) for name, value in named.items()}:
        raise ValueError("its weights are those of another network")
    network = make()
    # A new dictionary: without what a file may have hidden in an OrderedDict's attributes.
    network.load_state_dict(dict(named))
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
