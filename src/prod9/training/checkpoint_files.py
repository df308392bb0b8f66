"""The files that a run is resumed from: ``last.ckpt``, and the checkpoint before it."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple, cast

from prod9.errors import Prod9Error
from prod9.files import write_errors
from prod9.torch_files import read_plain, write_plain

LAST, PREVIOUS, _NEXT = "last.ckpt", "previous.ckpt", "next.ckpt"
CONFIG_KEY, POSITION_KEY = "prod9_config", "prod9_position"
"""Keys of a checkpoint: the resolved configuration (YAML), and the fields of its position."""


class Position(NamedTuple):
    """How far a run is."""

    epochs: int = 0
    """Finished epochs, with their validation."""
    batches: int = 0
    """Finished batches of the next epoch."""
    batch_items: int = 0
    """Items in each of these batches, over all processes."""
    steps: int = 0
    """Finished batches of the whole run."""

    def batches_of(self, items: int) -> int:
        """Return the number of finished batches of ``items``; one that is part done is repeated."""
        return self.batches * self.batch_items // items

    def __str__(self) -> str:
        if not self.batches:
            return f"after epoch {self.epochs}"
        return f"in epoch {self.epochs + 1} after batch {self.batches}"


class Saved(NamedTuple):
    """A whole checkpoint."""

    path: Path
    content: dict[str, Any]
    position: Position
    config: str
    """YAML."""
    torn: Path | None
    """The newer one, ``last.ckpt``, where it cannot be read."""


def write_last(path: Path, content: dict[str, Any]) -> None:
    """Write ``path``; what was there before is its neighbour ``previous.ckpt`` afterwards.

    At any moment there is a whole checkpoint, also when the disk is full.

    Raises:
        Prod9Error: it cannot be written; all files are as before.
    """
    new = path.with_name(_NEXT)
    write_plain(new, content)
    with write_errors(path):
        if path.exists():
            path.replace(path.with_name(PREVIOUS))
        new.replace(path)


def exists_in(folder: Path) -> bool:
    """Whether there is a checkpoint to resume from, whole or torn."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def read_last(folder: Path) -> Saved:
    """Read the newest whole checkpoint of ``folder``.

    Raises:
        Prod9Error: there is none.
    """
    last, previous = folder / LAST, folder / PREVIOUS
    if not exists_in(folder):
        raise Prod9Error(f"there is no checkpoint {last} to resume from; start without --resume.")
    path, torn = last if last.exists() else previous, None
    try:
        content = _read(path)
    except Prod9Error as error:
        path, torn = previous, path
        try:
            content = _read(path)
        except Prod9Error:
            raise error from None
    try:
        fields = {name: int(value) for name, value in content[POSITION_KEY].items()}
        return Saved(path, content, Position(**fields), str(content[CONFIG_KEY]), torn)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Prod9Error(
            f"{path} is not a checkpoint of prod9's; remove it from the run's folder."
        ) from error


def _read(path: Path) -> dict[str, Any]:
    remedy = "resume from an older one renamed to last.ckpt"
    content = read_plain(path, remedy)
    try:  # PyTorch writes checksums but does not compare them
        with zipfile.ZipFile(path) as archive:
            torn = archive.testzip()
    except Exception as error:  # zipfile raises many types, depending on what is damaged
        torn = str(error)
    if torn is not None:
        raise Prod9Error(f"{path} cannot be read: it is torn ({torn}); {remedy}.")
    if not isinstance(content, dict):
        raise Prod9Error(f"{path} is not a checkpoint; remove it from the run's folder.")
    return cast("dict[str, Any]", content)
