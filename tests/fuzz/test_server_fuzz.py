"""Requests that no browser sends: the viewer's server answers, or hangs up, and lives on."""

import random
import socket
import struct
import threading
from collections.abc import Generator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prod9.report.server import VolumeServer
from prod9.report.viewed_files import find_volumes

SECRET = b"a secret beside the volumes"
METHODS = ("GET", "HEAD", "POST", "PUT", "TRACE", "CONNECT", "get", "", "GET GET", "\x00", "Ü")
PATHS = (
    *("/", "/volume/0", "/volume/1", "/volume/00", "/volume/-1", "/volume/0x0", "//volume/0"),
    *("/../secret.txt", "/volume/../../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt"),
    *("http://[", "http://[::1", "//[", "http://evil.example/volume/0", "file:///etc/passwd", "*"),
    *("/volume/0?x=../..", "/volume/0#x", "/volume/0;x", "/\\..\\secret.txt", "/secret.txt"),
    *("/volume/" + "9" * 5000, "/volume/\u0660", "/volume/0\x00", "/" + "a" * 70_000, ""),
)
VERSIONS = ("HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "HTTP/9", "", "HTTP/1.1 x", "http/1.1")
HEADERS = (
    *("Host: {here}", "Host: evil.example", "Host:", "Host: {here}\r\nHost: evil.example"),
    *("Host: evil.example\r\nHost: {here}", "Host: {here}.evil.example", "Host: 127.0.0.1"),
    *("X: " + "a" * 70_000, "\r\n".join(f"X{i}: 1" for i in range(200)), ": x", "no colon", "\x00"),
    *("Range: bytes=0-", "Content-Length: 99999999999", "Transfer-Encoding: chunked"),
    *("Expect: 100-continue", "Connection: keep-alive", " folded", "Origin: http://evil.example"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[VolumeServer]:
    folder = tmp_path_factory.mktemp("viewed")
    (folder / "secret.txt").write_bytes(SECRET)
    volume = folder / "seen" / "a.nii"
    volume.parent.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.eye(4)), volume)
    with VolumeServer(find_volumes([volume.parent])) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: VolumeServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(1 << 16), b""))
        except OSError:  # refused in the middle of a long header
            return b""


def good(server: VolumeServer) -> bytes:
    return f"GET /volume/0 HTTP/1.0\r\nHost: localhost:{server.server_port}\r\n\r\n".encode()


def draw(rng: random.Random, here: str) -> bytes:
    line = f"{rng.choice(METHODS)} {rng.choice(PATHS)} {rng.choice(VERSIONS)}"
    headers = [rng.choice(HEADERS).replace("{here}", here) for _ in range(rng.randrange(4))]
    if rng.random() < 0.5:
        headers.insert(0, f"Host: {here}")
    request = "\r\n".join([line, *headers, "", "body"]).encode("utf-8")
    return request[: rng.randrange(len(request))] if rng.random() < 0.2 else request


def lives_on(server: VolumeServer, request: bytes) -> None:
    answer = ask(server, request)
    assert SECRET not in answer
    if b" 200 " in answer.split(b"\r\n")[0]:
        head = request.split(b"\r\n")[0].split()
        assert head[0] in (b"GET", b"HEAD")
        assert f"127.0.0.1:{server.server_port}".encode() in request  # never another host
    assert b"<script" not in answer or answer.startswith(b"HTTP/1.0 200")
    assert ask(server, good(server)).startswith(b"HTTP/1.0 200")


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_odd_requests(server: VolumeServer, seed: int) -> None:
    lives_on(server, draw(random.Random(seed), f"127.0.0.1:{server.server_port}"))


@pytest.mark.slow
@settings(max_examples=3000)
@given(seed=st.integers(0, 2**64))
def test_many_odd_requests(server: VolumeServer, seed: int) -> None:
    lives_on(server, draw(random.Random(seed), f"127.0.0.1:{server.server_port}"))


@settings(max_examples=20)
@given(request=st.binary(max_size=200))
def test_no_requests_at_all(server: VolumeServer, request: bytes) -> None:
    lives_on(server, request)


def test_requests_without_a_version_are_refused(server: VolumeServer) -> None:
    answer = ask(server, f"GET / \r\nHost: localhost:{server.server_port}\r\n\r\n".encode())
    assert answer == b"400 Bad Request\n"


def test_nothing_is_said_of_them(server: VolumeServer, capfd: pytest.CaptureFixture[str]) -> None:
    here = f"localhost:{server.server_port}"
    for path in ("http://[", "//[", "/volume/0"):
        answer = ask(server, f"GET {path} HTTP/1.0\r\nHost: {here}\r\n\r\n".encode())
        assert answer.split()[1] in (b"400", b"404", b"200")
    for _ in range(5):  # reset in the middle of a header
        connection = socket.create_connection(("127.0.0.1", server.server_port))
        connection.sendall(b"GET / HTTP/1.0\r\nHost: x")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert ask(server, good(server)).startswith(b"HTTP/1.0 200")
    assert capfd.readouterr() == ("", "")


def test_a_link_is_shown_only_if_it_is_a_volume(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(SECRET)
    folder = tmp_path / "seen"
    folder.mkdir()
    (folder / "a.nii").symlink_to(secret)
    with pytest.raises(Exception, match=r"a\.nii cannot be read"):
        find_volumes([folder])
