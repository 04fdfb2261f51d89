"""A chat server over real HTTP that fails as servers do: it is busy, breaks, resets, hangs, cuts answers and garbles them."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("429", "500", "reset", "hang", "cut", "garbled", "empty")
HANG_S = 1.5


class Unruly:
    """``share`` of the requests fail, evenly over ``FAULTS``; the others are answered after ``pause_s``."""

    def __init__(self, share: float, seed: int = 1, pause_s: float = 0.0) -> None:
        self.share, self.pause_s = share, pause_s
        self.rng, self.lock = random.Random(seed), threading.Lock()
        self.seen: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Killed clients leave broken pipes."""

        self.http = Http(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self.lock:
            bad = self.rng.random() < self.share
            kind = self.rng.choice(FAULTS) if bad else "answered"
            self.seen[kind] += 1
        time.sleep(HANG_S if kind == "hang" else self.pause_s)
        whole = json.dumps(answer_to(body)).encode()
        match kind:
            case "429" | "500":
                refused = json.dumps({"error": {"message": "busy"}}).encode()
                send(handler, int(kind), refused)
            case "reset":
                linger = struct.pack("ii", 1, 0)
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                handler.connection.close()
            case "cut":
                send(handler, 200, whole[: len(whole) // 2], promised=len(whole))
            case "garbled":
                send(handler, 200, whole[: len(whole) // 2])
            case "empty":
                send(handler, 200, b'{"object": "chat.completion", "choices": [{"index": 0}]}')
            case _:
                send(handler, 200, whole)

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def answer_to(body: dict[str, Any]) -> dict[str, Any]:
    """Samples that depend on the question and their seeds alone, as a model's do."""
    asked = body["messages"][-1]["content"]
    texts = [f"{asked} {body['seed'] + i}" for i in range(body["n"])]
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for i, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 5, "completion_tokens": 7 * len(texts), "total_tokens": 0}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": choices,
        "usage": usage,
    }


def send(
    handler: BaseHTTPRequestHandler, status: int, data: bytes, promised: int | None = None
) -> None:
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(data) if promised is None else promised))
    handler.end_headers()
    handler.wfile.write(data)
    if promised is not None:
        handler.close_connection = True
