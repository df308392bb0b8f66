"""The viewer as a page of this machine: a read-only server for the NIfTI files it was given.

Only this machine can reach it, and only pages of its own: other names for the address (DNS
rebinding) and other sites' requests for the volumes are refused. Which file is sent is a number
in a list made at the start; no path ever comes from a request.
"""

import errno
import re
import shutil
import socketserver
import sys
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from prod9.errors import Prod9Error
from prod9.report import viewer
from prod9.report.document import script_hashes
from prod9.report.viewed_files import ViewedFile

HOST = "127.0.0.1"


class VolumeServer(ThreadingHTTPServer):
    """Serves ``/``, ``/niivue.js`` and ``/volume/N`` on this machine, until it is shut down."""

    def __init__(self, volumes: Sequence[ViewedFile], port: int = 0) -> None:
        """Listen on ``port``, or on a free one when it is 0.

        Raises:
            Prod9Error: the port is taken, or may not be used.
        """
        self.volumes = tuple(volumes)
        self.page, self.policy = _page(self.volumes)
        self.library = viewer.niivue().encode()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            reason = {
                errno.EADDRINUSE: "is in use",
                errno.EACCES: "may not be used",
            }.get(error.errno or 0, f"cannot be used ({error.strerror or error})")
            raise Prod9Error(
                f"port {port} {reason}; choose another with --port, or leave the option out."
            ) from error
        self.url = f"http://{HOST}:{self.server_port}/"
        names = (HOST, "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names}
        if self.server_port == 80:  # browsers leave it out
            self.hosts |= set(names)

    def server_bind(self) -> None:
        # Not HTTPServer's: that asks the network for this machine's name.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        # A connection that broke while it was read is no error of ours.
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = 60  # seconds without a byte
    server: VolumeServer  # type: ignore[assignment]

    def do_GET(self) -> None:
        # A browser that closes its tab breaks the connection: no error of ours.
        with suppress(ConnectionError, TimeoutError):
            self._answer()

    do_HEAD = do_GET

    def _refuse_method(self) -> None:
        self._fail(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method

    def _answer(self) -> None:
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self._fail(HTTPStatus.FORBIDDEN)
            return
        if self.request_version == "HTTP/0.9":  # no browser asks so
            self._fail(HTTPStatus.BAD_REQUEST)
            return
        try:
            path = urlsplit(self.path).path
        except ValueError:  # such as "http://["
            self._fail(HTTPStatus.BAD_REQUEST)
            return
        number = re.fullmatch(r"/volume/([0-9]{1,9})", path)
        if path == "/":
            self._send(self.server.page, "text/html; charset=utf-8")
        elif path == "/niivue.js":
            self._send(self.server.library, "text/javascript; charset=utf-8")
        elif number and int(number[1]) < len(self.server.volumes):
            self._send_file(self.server.volumes[int(number[1])].path)
        else:
            self._fail(HTTPStatus.NOT_FOUND)

    def _send(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._head(status, kind, len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _send_file(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError:  # removed since the start
            self._fail(HTTPStatus.NOT_FOUND)
            return
        with file:
            size = file.seek(0, 2)
            file.seek(0)
            self._head(HTTPStatus.OK, "application/octet-stream", size)
            if self.command != "HEAD":
                shutil.copyfileobj(file, self.wfile, 1 << 20)

    def _fail(self, status: HTTPStatus) -> None:
        with suppress(ConnectionError, TimeoutError):
            self._send(f"{status.value} {status.phrase}\n".encode(), "text/plain", status)

    def _head(self, status: HTTPStatus, kind: str, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(size))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()

    def end_headers(self) -> None:
        # Here, so that the answers of the base class (bad requests) carry them too.
        for name, value in (
            ("Content-Security-Policy", self.server.policy),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        super().end_headers()

    def version_string(self) -> str:
        return "prod9"

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet: the terminal belongs to the user."""


def _page(volumes: Sequence[ViewedFile]) -> tuple[bytes, str]:
    """Return the page and its Content-Security-Policy."""
    links = [
        viewer.VolumeLink(file.group, file.name, f"volume/{position}")
        for position, file in enumerate(volumes)
    ]
    groups = list(dict.fromkeys(file.group for file in volumes))
    title = f"{groups[0]}{' …' if len(groups) > 1 else ''} – prod9 view"
    count = f"{len(volumes)} volume{'s' if len(volumes) != 1 else ''}"
    style = viewer.asset("server.css")
    page = viewer.asset("server.html").format(
        style=style,
        title=viewer.plain(title),
        count=count,
        viewer=viewer.linked_fragment(links, wheel="always"),
    )
    return page.encode(), policy([viewer.script()], [style, viewer.style()])


def policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Return a Content-Security-Policy for a page with these inline scripts and styles.

    NiiVue needs neither ``eval`` nor workers; its font is an image inside the script (``data:``).
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {script_hashes(scripts)}",
            f"style-src {script_hashes(styles)}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
