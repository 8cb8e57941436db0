"""A server on this machine that speaks as much of the Hugging Face hub as loading and pushing need; counts requests and
bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories by name, and the requests that came in, such as `HEAD config.json`."""

    repositories: dict[str, Path]
    requests: list[str] = field(default_factory=list)
    failing: frozenset[str] = frozenset()
    """Files for which requests end in an error that is not tried again."""

    tokens: set[str] = field(default_factory=set)
    """Headers of authorization that came in."""
    bytes_sent: int = 0
    """Size of the contents of all files that were downloaded."""
    endpoint: str = ""
    """Address, as HF_ENDPOINT."""
    private: str | None = None
    """Token without which there seem to be no repositories."""
    uploads: Path | None = None
    """Folder for repositories that are pushed, `OWNER/NAME` each."""

    def fetched(self) -> list[str]:
        """Names of the files that were downloaded, in alphabetical order."""
        return sorted(
            request.removeprefix("GET ")
            for request in self.requests
            if request.startswith("GET ") and request != "GET "
        )


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"POST {self.path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        answer: object = {}
        lines = [json.loads(line) for line in body.splitlines()]
        if self.path == "/api/repos/create":
            name = f"{lines[0].get('organization', 'someone')}/{lines[0]['name']}"
            if "forbidden" in name:
                self._send(403, {})
                return
            assert self.hub.uploads is not None
            self.hub.repositories[name] = self.hub.uploads / name
            answer = {"url": f"https://huggingface.co/{name}"}
        elif "/preupload/" in self.path:
            files = [each["path"] for each in lines[0]["files"]]
            answer = {
                "files": [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]
            }
        elif "/commit/" in self.path:
            name = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            for each in (line["value"] for line in lines if line["key"] == "file"):
                target = self.hub.repositories[name] / each["path"]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(base64.b64decode(each["content"]))
            answer = {"commitUrl": f"https://huggingface.co/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(answer).encode(), body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        if "Authorization" in self.headers:
            self.hub.tokens.add(self.headers["Authorization"])
        name, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        self.hub.requests.append(f"{self.command} {file}")
        repository = self.hub.repositories.get(name)
        path = None if repository is None else repository / file
        if file in self.hub.failing:
            self._send(418, {})
        elif path is None or (
            self.hub.private and self.headers.get("Authorization") != f"Bearer {self.hub.private}"
        ):
            self._send(404 if self.hub.private is None else 401, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        elif not path.is_file():
            self._send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = path.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.hub.bytes_sent += len(content) if body else 0
            self._send(200, {"ETag": etag, "X-Repo-Commit": COMMIT}, content, body=body)

    def _send(
        self, status: int, headers: dict[str, str], content: bytes = b"", *, body: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch, cache: Path, **repositories: Path) -> Iterator[Hub]:
    """Serve directories as the repositories `someone/NAME` of the hub, with an empty cache."""
    from huggingface_hub import constants, hf_api
    from transformers.utils import hub as hub_of_transformers

    hub = Hub({f"someone/{name}": path for name, path in repositories.items()})
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    endpoint = hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    # Both libraries keep a client with the address of its making, which may be that of the real hub.
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    monkeypatch.setattr(hub_of_transformers, "_hf_api", None, raising=False)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
