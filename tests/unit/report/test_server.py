import http.client
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Generator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from prod9.cli.run import guarded, new_app
from prod9.cli.view import view
from prod9.errors import Prod9Error
from prod9.report.page import asset
from prod9.report.server import VolumeServer
from prod9.report.viewed_files import ViewedFile, find_volumes
from prod9.report.viewer import nifti_bytes


def write(path: Path, value: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(np.full((2, 3, 4), value, np.float32), np.eye(4))
    nib.save(image, path)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Generator[VolumeServer]:
    (tmp_path / "secret.txt").write_text("secret")
    write(tmp_path / "seen" / "a.nii.gz")
    write(tmp_path / "seen" / "b.nii", 0.75)
    write(tmp_path / "unseen.nii")
    with VolumeServer(find_volumes([tmp_path / "seen"])) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: VolumeServer, path: str, *, method: str = "GET", host: str | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    if host != "":
        connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_the_page_the_library_and_the_files_are_served(
    server: VolumeServer, tmp_path: Path
) -> None:
    answer, page = ask(server, "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'<option value="volume/0" selected>a</option>' in page
    assert b'<option value="volume/1">b</option>' in page
    answer, library = ask(server, "/niivue.js")
    assert library.decode().endswith(asset("vendor/niivue.umd.js"))
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    for number, name in enumerate(("a.nii.gz", "b.nii")):
        answer, content = ask(server, f"/volume/{number}")
        assert content == (tmp_path / "seen" / name).read_bytes()
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Length"] == str(len(content))


def ask_raw(server: VolumeServer, method: str, path: str) -> bytes:
    """Return the whole answer: http.client refuses odd paths, and hides what HEAD may not send."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        head = f"{method} {path} HTTP/1.0\r\nHost: localhost:{server.server_port}\r\n\r\n"
        connection.sendall(head.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "path",
    [
        "/volume/2",
        "/volume/-1",
        "/volume/0/",
        "/volume/",
        "/volume/0/../../secret.txt",
        "/volume/../../secret.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/volume/%30",
        "/volume/٠",
        "/volume/9999999999",
        "/seen/a.nii.gz",
        "/index.html",
    ],
)
def test_nothing_else_is_served(server: VolumeServer, path: str) -> None:
    answer = ask_raw(server, "GET", path)
    assert answer.split()[1] == b"404"
    assert b"secret" not in answer


def test_only_this_machines_names_are_answered(server: VolumeServer) -> None:
    port = server.server_port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert ask(server, "/volume/0", host=host)[0].status == 200
    # "" is no Host at all.
    for host in ("", "evil.example", f"evil.example:{port}", "127.0.0.1", "localhost:1"):
        answer, content = ask(server, "/volume/0", host=host)
        assert answer.status == 403
        assert content == b"403 Forbidden\n"


def test_it_listens_on_this_machine_only(server: VolumeServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_written(server: VolumeServer, method: str) -> None:
    answer, _ = ask(server, "/volume/0", method=method)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"


def test_head_sends_no_body(server: VolumeServer, tmp_path: Path) -> None:
    size = (tmp_path / "seen" / "a.nii.gz").stat().st_size
    for path, length in (("/volume/0", size), ("/", len(ask(server, "/")[1]))):
        answer = ask_raw(server, "HEAD", path)
        assert answer.split()[1] == b"200"
        assert f"Content-Length: {length}\r\n".encode() in answer
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/", "/niivue.js", "/volume/0", "/nothing"])
def test_every_answer_is_guarded(server: VolumeServer, path: str) -> None:
    headers = ask(server, path)[0].headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    for name in ("script-src", "style-src"):
        assert "unsafe" not in policy[name]
        assert "sha256-" in policy[name]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Server"] == "prod9"  # no versions
    assert "Access-Control-Allow-Origin" not in headers


def test_a_file_that_is_gone(server: VolumeServer, tmp_path: Path) -> None:
    (tmp_path / "seen" / "a.nii.gz").unlink()
    assert ask(server, "/volume/0")[0].status == 404
    assert ask(server, "/volume/1")[0].status == 200


def test_a_reader_that_leaves_does_no_harm(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    big = tmp_path / "big.nii"
    nib.save(nib.Nifti1Image(np.zeros((256, 256, 128), np.uint8), np.eye(4)), big)  # 8 MiB
    with VolumeServer(find_volumes([big])) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
                    host = f"Host: 127.0.0.1:{server.server_port}"
                    connection.sendall(f"GET /volume/0 HTTP/1.0\r\n{host}\r\n\r\n".encode())
                    connection.recv(10)
            assert ask(server, "/volume/0")[1] == big.read_bytes()
        finally:
            server.shutdown()
            thread.join()
    assert capfd.readouterr() == ("", "")


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Prod9Error, match=f"port {port} is in use; choose another with --port"):
            VolumeServer([ViewedFile("g", "n", Path("n.nii"))], port)


def test_folders_and_the_folders_in_them_are_groups(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.NII", "x/c.nii", "x/deep/d.nii", "w/e.nii.gz", ".hidden.nii"):
        write(tmp_path / name)
    write(tmp_path / ".hidden" / "f.nii")
    (tmp_path / "notes.txt").write_text("no volume")
    np.save(tmp_path / "array.npy", np.zeros(3))
    found = find_volumes([tmp_path])
    assert [(Path(file.group).relative_to(tmp_path).as_posix(), file.name) for file in found] == [
        (".", "a"),
        (".", "b"),
        ("w", "e"),
        ("x", "c"),
    ]
    assert [file.path.name for file in found] == ["a.NII", "b.nii.gz", "e.nii.gz", "c.nii"]


def test_files_are_a_group_in_their_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("b.nii", "a.nii.gz")]
    assert find_volumes(paths) == [
        ViewedFile("files", "b", paths[0]),
        ViewedFile("files", "a", paths[1]),
    ]


def test_what_cannot_be_shown_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(Prod9Error, match=r"missing does not exist"):
        find_volumes([missing])
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Prod9Error, match=r"empty has no NIfTI files in it"):
        find_volumes([empty])
    np.save(empty / "array.npy", np.zeros(3))
    with pytest.raises(Prod9Error, match=r"array\.npy is no NIfTI file.*nibabel\.Nifti1Image"):
        find_volumes([empty / "array.npy"])
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(Prod9Error, match=r"x\.txt is no NIfTI file"):
        find_volumes([tmp_path / "x.txt"])


@pytest.mark.parametrize("name", ["broken.nii", "broken.nii.gz"])
@pytest.mark.parametrize("content", [b"", b"no volume" * 100, nifti_bytes(np.ones((2, 2, 2)))[:30]])
def test_a_file_that_is_no_nifti_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Prod9Error, match=f"{name} cannot be read"):
        find_volumes([tmp_path])


def test_names_cannot_inject_into_the_page(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    write(tmp_path / name / f"{name}.nii")
    with VolumeServer(find_volumes([tmp_path / name])) as server:
        page = server.texts["/"][1].decode()
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;</option>") == 2


def run_view(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command as a console script does; return its exit code."""
    app = new_app("test")
    app.command()(view)
    monkeypatch.setattr(sys, "argv", ["view", *arguments])
    with pytest.raises(SystemExit) as end:
        guarded(app)()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("display", "option", "opened"),
    [(":1", [], True), ("", [], False), (":1", ["--no-browser"], False)],
)
def test_the_command_ends_well_with_ctrl_c(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    display: str,
    option: list[str],
    opened: bool,
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("WAYLAND_DISPLAY", "")
    urls: list[str] = []
    monkeypatch.setattr(webbrowser, "open", urls.append)
    serving = VolumeServer.serve_forever

    def interrupted(server: VolumeServer) -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        serving(server, 0.01)

    monkeypatch.setattr(VolumeServer, "serve_forever", interrupted)
    write(tmp_path / "a.nii")
    assert run_view(monkeypatch, str(tmp_path), *option) == 0
    out, error = capfd.readouterr()
    first, last = out.splitlines()
    assert first.startswith("1 volume at http://127.0.0.1:")
    assert (last, error) == ("stopped.", "")
    assert urls == ([first.split()[3]] if opened else [])


def test_ctrl_c_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(server: VolumeServer) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VolumeServer, "serve_forever", interrupted)

    def own(signum: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGINT, own)
    try:
        view([write(tmp_path / "a.nii")], browser=False)
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_command_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_view(monkeypatch, str(tmp_path / "nothing")) == 2
    wanted = f"error: {tmp_path / 'nothing'} does not exist; check the path.\n"
    assert capfd.readouterr() == ("", wanted)
