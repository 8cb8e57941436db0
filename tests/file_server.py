"""A server on this machine that gives out the files of a folder by ranges of bytes, and whose network can be cut."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class FileServer:
    """Files to serve, the way to serve them, and the requests received."""

    folder: Path
    url: str = ""
    is_cut: bool = False
    """Connections are closed without an answer."""
    status: int = 200
    """Another one is the answer to everything."""
    has_ranges: bool = True
    requests: list[str] = field(default_factory=list)
    """Such as `GET a.tar 0-99`."""
    cut_after: int | None = None
    """Number of requests after which the network is cut."""

    def fetched(self) -> list[str]:
        """The requests for content."""
        return [request for request in self.requests if request.startswith("GET")]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        files = self.server.files
        if files.cut_after is not None and len(files.requests) >= files.cut_after:
            files.is_cut, files.cut_after = True, None
        if files.is_cut:
            self.close_connection = True
            return
        path = files.folder / self.path.lstrip("/")
        bounds = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = f" {bounds[1]}-{bounds[2]}" if bounds else ""
        files.requests.append(f"{self.command} {self.path.lstrip('/')}{part}")
        if files.status != 200 or not path.exists():
            self._send(404 if files.status == 200 else files.status, b"", "text/plain")
        elif path.is_dir():
            links = "".join(f'<a href="{entry.name}">x</a>' for entry in sorted(path.iterdir()))
            self._send(200, links.encode(), "text/html")
        elif bounds and files.has_ranges:
            content = path.read_bytes()
            chosen = content[int(bounds[1]) : int(bounds[2]) + 1]
            self._send(206, chosen, "application/x-tar", f"bytes {bounds[1]}-{bounds[2]}/{len(content)}")
        else:
            self._send(200, path.read_bytes(), "application/x-tar")

    def _send(self, status: int, content: bytes, kind: str, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", kind)
        if content_range:
            self.send_header("Content-Range", content_range)
        if status < 300:
            path = self.server.files.folder / self.path.lstrip("/")
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    files: FileServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are no error."""


@contextmanager
def serve_files(folder: Path, port: int = 0) -> Iterator[FileServer]:
    """Serve a folder until the block is left."""
    server = _Server(("127.0.0.1", port), _Handler)
    server.files = FileServer(folder, url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.files
    finally:
        server.shutdown()
        server.server_close()
