"""A fake Hugging Face hub on this machine: it knows a few repositories and says which commit a revision of one is."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class FakeHub(ThreadingHTTPServer):
    """``commits`` maps ``datasets/OWNER/NAME`` or ``models/OWNER/NAME`` to its revisions; ``asked`` are the paths of requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/api/")
        if path.startswith(("datasets/", "models/")):  # the client asks for other things of its own
            self.server.asked.append(path)
        name, _, revision = path.partition("/revision/")
        known = self.server.commits.get(name)
        if known is None:
            self._answer(404, {"error": "not found"}, "RepoNotFound")
        elif (revision or "main") not in known:
            self._answer(404, {"error": "not found"}, "RevisionNotFound")
        else:
            sha = known[revision or "main"]
            self._answer(200, {"id": name.partition("/")[2], "sha": sha})

    def _answer(self, status: int, body: dict[str, str], error: str | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running() -> Iterator[FakeHub]:
    """A hub that answers until the block ends."""
    with FakeHub() as hub:
        thread = Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()
