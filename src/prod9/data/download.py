"""One file from the internet: announced, resumed, checked, and whole or not there."""

from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from prod9.errors import Prod9Error
from prod9.files import hexdigest, write_errors
from prod9.runtime.console import say

TIMEOUT_S = (10.0, 60.0)
"""To connect, and between two pieces."""
PIECE_BYTES = 1 << 18


def fetch(url: str, path: Path, *, digest: str, allowed: bool, what: str, hint: str) -> Path:
    """Return ``path``, downloaded from ``url`` if it does not exist yet.

    An interrupted download is continued from ``<path>.part``.

    ``digest`` is ``md5:<hex>`` or ``sha256:<hex>``; an existing file is checked too. ``what`` is
    the file's name for messages, ``hint`` what else the user can do, a clause without a full stop.

    Raises:
        Prod9Error: the file has another digest; it is missing and must not be, or cannot be,
            downloaded. The sentence names file, URL, digest and target.
    """
    algorithm, _, expected = digest.partition(":")
    if path.exists():
        found = hexdigest(path, algorithm)
        if found != expected:
            raise Prod9Error(
                f"{path} is not {what}: its digest is {algorithm}:{found}, expected {digest}; "
                f"delete it (or replace it with the file from {url})."
            )
        return path
    by_hand = f"fetch {url} ({digest}) elsewhere and put it at {path}; {hint}."
    if not allowed:
        raise Prod9Error(f"{what} is not at {path} and downloading is switched off: {by_hand}")
    import requests  # a fifth of the start of `prod9 data list`, which downloads nothing

    part = path.with_suffix(path.suffix + ".part")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(url, part, f"{what} from {url} to {path}")
        except requests.RequestException as error:  # an OSError, too
            offline = isinstance(error, requests.ConnectionError)
            reason = "no connection to the server" if offline else error
            raise Prod9Error(f"cannot download {what} ({reason}): {by_hand}") from error
        found = hexdigest(part, algorithm)
        if found != expected:
            part.unlink()
            raise Prod9Error(
                f"what {url} sent is not {what}: its digest is {algorithm}:{found}, expected "
                f"{digest}; it was deleted. Try again, or {by_hand}"
            )
        part.replace(path)
    return path


def _download(url: str, part: Path, what: str) -> None:
    """Bring ``part`` to its full length."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    # "identity": a range of compressed bytes would be a range of another file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable and have:
            part.unlink()
            _download(url, part, what)
            return
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        size = f"{total / 1e6:.1f} MB" if total else "unknown size"
        say(f"Downloading {what} ({size}, {have / 1e6:.1f} MB of it here already)")
        columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
        console = Console(stderr=True)
        with part.open("ab" if have else "wb") as file, Progress(*columns, console=console) as bar:
            task = bar.add_task("download", total=total, completed=have)
            for piece in response.iter_content(PIECE_BYTES):
                file.write(piece)
                bar.advance(task, len(piece))
