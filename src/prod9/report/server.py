"""The viewer as a page of this machine: a read-only server for the NIfTI files it was given.

Only this machine can reach it, and only pages of its own: other names for the address (DNS
rebinding) and other sites' requests for the volumes are refused. Which file is sent is a number
in a list made at the start; no path ever comes from a request.
"""

import errno
import re
import socketserver
import sys
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prod9.errors import Prod9Error
from prod9.report.page import asset, page_policy, render
from prod9.report.viewed_files import ViewedFile
from prod9.report.viewer import ViewerVolume, niivue, viewer_values

HOST = "127.0.0.1"
_REASONS = {errno.EADDRINUSE: "is in use", errno.EACCES: "may not be used"}


class VolumeServer(ThreadingHTTPServer):
    """Serves ``/``, ``/niivue.js`` and ``/volume/N`` on this machine, until it is shut down."""

    def __init__(self, volumes: Sequence[ViewedFile], port: int = 0) -> None:
        """Listen on ``port``, or on a free one when it is 0.

        Raises:
            Prod9Error: the port is taken, or may not be used.
        """
        self.volumes = volumes
        groups = list(dict.fromkeys(file.group for file in volumes))
        links = [ViewerVolume(f.group, f.name, f"volume/{i}") for i, f in enumerate(volumes)]
        styles, scripts = [asset("view.css"), asset("viewer.css")], [asset("viewer.js")]
        self.policy = page_policy(scripts, styles, served=True)
        page = render(
            "view.html",
            title=f"{groups[0]}{' …' if len(groups) > 1 else ''} – prod9 view",
            count=len(volumes),
            styles=styles,
            scripts=scripts,
            **viewer_values(links),
        )
        self.texts = {
            "/": ("text/html; charset=utf-8", page.encode()),
            "/niivue.js": ("text/javascript; charset=utf-8", niivue().encode()),
        }
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, f"cannot be used ({error.strerror or error})")
            raise Prod9Error(
                f"port {port} {reason}; choose another with --port, or leave the option out."
            ) from error
        self.url = f"http://{HOST}:{self.server_port}/"
        # Browsers leave port 80 out.
        ends = (f":{self.server_port}", *([""] if self.server_port == 80 else []))
        self.hosts = {name + end for name in (HOST, "localhost") for end in ends}

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
        # No browser asks in the way of HTTP/0.9, whose answers have no headers.
        if self.request_version == "HTTP/0.9":
            self._refuse(HTTPStatus.BAD_REQUEST)
        elif self.headers.get("Host", "").lower() not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN)
        else:
            self._answer(self.path.partition("?")[0])

    do_HEAD = do_GET

    def _refuse_method(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method

    def _answer(self, path: str) -> None:
        number = re.fullmatch(r"/volume/([0-9]{1,9})", path)
        if path in self.server.texts:
            self._send(HTTPStatus.OK, *self.server.texts[path])
        elif number and int(number[1]) < len(self.server.volumes):
            try:
                content = self.server.volumes[int(number[1])].path.read_bytes()
            except OSError:  # removed since the start
                self._refuse(HTTPStatus.NOT_FOUND)
            else:
                self._send(HTTPStatus.OK, "application/octet-stream", content)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(status, "text/plain", f"{status.value} {status.phrase}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        # A browser that closes its tab breaks the connection: no error of ours.
        with suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET, HEAD")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

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
