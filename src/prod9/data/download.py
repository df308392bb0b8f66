"""One file from the internet: announced, resumed, checked, and whole or not there."""

from pathlib import Path

import requests
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from prod9.errors import Prod9Error
from prod9.files import hexdigest, write_errors

TIMEOUT_S = (10.0, 60.0)  # to connect, between two pieces
PIECE_BYTES = 1 << 18


def fetch(url: str, path: Path, *, digest: str, allowed: bool, what: str, hint: str) -> Path:
    """Return ``path``, downloaded from ``url`` if it is not there yet.

    What has arrived lies in ``<path>.part``; an interrupted download goes on from there.

    Args:
        url: Where the file comes from (http or https).
        path: Where it belongs.
        digest: ``md5:<hex>`` or ``sha256:<hex>``.
        allowed: False forbids the download; a file that is there is checked all the same.
        what: What the file is, for messages ("organmnist3d (28)").
        hint: What else the user can do, for messages; a clause without a full stop.

    Raises:
        Prod9Error: the file has another digest; it is missing and must not be, or cannot be,
            downloaded. The sentence names file, URL, digest and target.
    """
    if path.exists():
        found = _digest_of(path, digest)
        if found != digest:
            raise Prod9Error(
                f"{path} is not {what}: its digest is {found}, expected {digest}; delete it (or "
                f"replace it with the file from {url})."
            )
        return path
    by_hand = f"fetch {url} ({digest}) elsewhere and put it at {path}; {hint}."
    if not allowed:
        raise Prod9Error(f"{what} is not at {path} and downloading is switched off: {by_hand}")
    part = path.with_suffix(path.suffix + ".part")
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _download(url, part, path, digest, what)
        except requests.RequestException as error:  # an OSError, too
            raise Prod9Error(f"cannot download {what} ({_reason(error)}): {by_hand}") from error
        found = _digest_of(part, digest)
        if found != digest:
            part.unlink()
            raise Prod9Error(
                f"what {url} sent is not {what}: its digest is {found}, expected {digest}; it was "
                f"deleted. Try again, or {by_hand}"
            )
        part.replace(path)
    return path


def _digest_of(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hexdigest(path, algorithm)}"


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server"
    return str(error) or type(error).__name__


def _download(url: str, part: Path, target: Path, digest: str, what: str) -> None:
    """Bring ``part`` to its full length."""
    have = part.stat().st_size if part.exists() else 0
    # "identity": a range of compressed bytes would be a range of another file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable and have:
            # Nothing beyond what is here: the file is complete, or it is not this file at all.
            if _digest_of(part, digest) != digest:
                part.unlink()
                _download(url, part, target, digest, what)
            return
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            have = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            raise requests.RequestException("the server sent another range than asked for")
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        console = Console(stderr=True)
        size = f"{total / 1e6:.1f} MB" if total else "unknown size"
        since = f", {have / 1e6:.1f} MB of it here already" if have else ""
        message = f"Downloading {what} from {url} ({size}{since}) to {target}"
        console.print(message, markup=False, soft_wrap=True)
        columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
        with part.open("ab" if have else "wb") as file, Progress(*columns, console=console) as bar:
            task = bar.add_task("download", total=total, completed=have)
            for piece in response.iter_content(PIECE_BYTES):
                file.write(piece)
                bar.advance(task, len(piece))
