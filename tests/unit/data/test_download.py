import hashlib
import socket
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from prod9.data.download import fetch
from prod9.errors import Prod9Error

CONTENT = bytes(range(256)) * 4096  # 1 MiB
DIGEST = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
HINT = "the embedded data set works without"


@dataclass
class Site:
    """A server on this machine that counts what it sends."""

    url: str = ""
    ranges: bool = True
    status: int = 200
    break_after: int | None = None  # bytes of the body before the connection drops
    asked: list[str | None] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)


@pytest.fixture
def site() -> Generator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            site.asked.append(wanted)
            if site.status != 200:
                self.send_error(site.status)
                return
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and site.ranges else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
                )
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            body = body if site.break_after is None else body[: site.break_after]
            site.sent.append(len(body))  # before the client can have it all
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}/data.npz?download=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def get(url: str, path: Path, *, digest: str = DIGEST, allowed: bool = True) -> Path:
    return fetch(url, path, digest=digest, allowed=allowed, what="toymnist3d", hint=HINT)


def refused(url: str, path: Path, *, digest: str = DIGEST, allowed: bool = True) -> str:
    with pytest.raises(Prod9Error) as caught:
        get(url, path, digest=digest, allowed=allowed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_download_is_announced_whole_and_leaves_no_part(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "data.npz"
    assert get(site.url, path) == path
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["data.npz"]
    output = capsys.readouterr()
    assert output.out == ""
    for word in ("toymnist3d", site.url, "1.0 MB", str(path)):
        assert word in output.err


def test_sha256_is_accepted_too(site: Site, tmp_path: Path) -> None:
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    assert get(site.url, tmp_path / "data.npz", digest=digest).read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(CONTENT)
    assert get(site.url, path, allowed=False) == path
    assert site.asked == []


def test_another_file_in_its_place_is_named_and_kept(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"other")
    message = refused(site.url, path)
    for word in (str(path), DIGEST, hashlib.md5(b"other").hexdigest(), "delete it"):
        assert word in message
    assert path.read_bytes() == b"other"


def test_a_forbidden_download_says_everything(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    message = refused(site.url, path, allowed=False)
    for word in ("toymnist3d", site.url, DIGEST, str(path), HINT):
        assert word in message
    assert site.asked == []


def test_resuming_asks_for_the_rest_only(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    site.break_after = 300_000
    assert HINT in refused(site.url, path)
    have = (tmp_path / "data.npz.part").stat().st_size
    assert 0 < have <= 300_000
    site.break_after = None
    assert get(site.url, path).read_bytes() == CONTENT
    assert site.asked == [None, f"bytes={have}-"]
    assert site.sent[1] == len(CONTENT) - have


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    (tmp_path / "data.npz.part").write_bytes(CONTENT[:1000])
    assert get(site.url, tmp_path / "data.npz").read_bytes() == CONTENT
    assert site.sent == [len(CONTENT)]


def test_a_part_that_is_too_long_starts_over(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data.npz.part").write_bytes(CONTENT + b"more")
    assert get(site.url, tmp_path / "data.npz").read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_wrong_content_is_deleted(site: Site, tmp_path: Path) -> None:
    wrong = f"md5:{'0' * 32}"
    message = refused(site.url, tmp_path / "data.npz", digest=wrong)
    assert DIGEST in message
    assert wrong in message
    assert list(tmp_path.iterdir()) == []


def test_an_http_error_is_a_sentence(site: Site, tmp_path: Path) -> None:
    site.status = 503
    message = refused(site.url, tmp_path / "data.npz")
    for word in ("503", site.url, DIGEST, str(tmp_path / "data.npz"), HINT):
        assert word in message


def test_a_refused_connection_is_a_sentence_and_keeps_the_part(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.npz"
    part = tmp_path / "data.npz.part"
    part.write_bytes(CONTENT[:1000])
    message = refused(url, tmp_path / "data.npz")
    for word in ("no connection", url, DIGEST, str(tmp_path / "data.npz"), HINT):
        assert word in message
    assert part.read_bytes() == CONTENT[:1000]


def test_an_unwritable_folder_is_a_sentence(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "cannot write" in refused(site.url, tmp_path / "file" / "data.npz")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/data.npz", "data.npz"])
def test_only_http(url: str, tmp_path: Path) -> None:
    assert "cannot download" in refused(url, tmp_path / "data.npz")
