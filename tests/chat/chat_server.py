"""A local OpenAI-compatible server for tests: it answers, fails, stalls and returns junk as it is told. Not a test."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Action = tuple[Any, ...]


def completion(text: str | None, **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": text, **message}
    return {
        "id": "1", "object": "chat.completion", "created": 1, "model": "served",
        "choices": [{"index": 0, "finish_reason": "stop", "message": said}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }  # fmt: skip


class ChatServer:
    """`behave(n, body)` says what the n-th request gets: ("say", text), ("json", object), ("status", code, headers),
    ("raw", bytes), ("stall", seconds), ("drip", seconds a byte), ("close",). `bodies` and `times` keep what came;
    `answered` the last messages that were answered."""

    def __init__(self, behave: Callable[[int, dict[str, Any]], Action]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.answered: list[str] = []
        self.under_way = self.most_under_way = 0
        self.lock, self.stop = threading.Lock(), threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    n = len(outer.bodies)
                    outer.bodies.append(body)
                    outer.headers.append(dict(self.headers))
                    outer.times.append(time.monotonic())
                    outer.under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer.under_way)
                try:
                    self.act(behave(n, body), body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with outer.lock:
                        outer.under_way -= 1

            def act(self, action: Action, body: dict[str, Any]) -> None:
                kind, rest = action[0], action[1:]
                if kind == "say":
                    self.send(200, json.dumps(completion(rest[0])).encode())
                    outer.answered.append(str(body["messages"][-1]["content"]))
                elif kind == "json":
                    self.send(200, json.dumps(rest[0]).encode())
                elif kind == "raw":
                    self.send(200, rest[0])
                elif kind == "status":
                    self.send(rest[0], b'{"error": {"message": "no"}}', rest[1] if len(rest) > 1 else {})
                elif kind == "stall":
                    outer.stop.wait(rest[0])
                    self.close_connection = True
                elif kind == "drip":
                    self.send_response(200)
                    self.send_header("Content-Length", "1000")
                    self.end_headers()
                    while not outer.stop.wait(rest[0]):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                elif kind == "close":
                    self.close_connection = True

            def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
