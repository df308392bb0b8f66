"""A server on this machine that gives one file, slowly, and any part of it."""

import hashlib
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(251)) * 8192  # 2 MB
DIGEST = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
_PIECE = 1 << 16


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.send_header("Content-Range", span)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        try:
            for at in range(start, len(CONTENT), _PIECE):
                self.wfile.write(CONTENT[at : at + _PIECE])
                time.sleep(0.002)
        except OSError:  # whoever asked was killed
            pass

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def site() -> Generator[str]:
    """Give the address of the file."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data.npz"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
