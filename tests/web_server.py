"""A threaded HTTP server on this machine that misbehaves on purpose, and a clock that never waits."""

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fabrica.safe.fetch import Clock

Answer = Callable[["Handler"], None]


class FakeClock(Clock):
    """Sleeping moves the hands."""

    def __init__(self) -> None:
        self.at, self.slept = 1000.0, list[float]()
        self.lock = threading.Lock()

    def now(self) -> float:
        return self.at

    def unix(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.at += max(0.0, seconds)
            if seconds > 0:
                self.slept.append(seconds)

    def until(self, running: Any, seconds: float | None) -> None:
        held = list(running)
        if held:  # time stands still while something runs
            wait(held, None, FIRST_COMPLETED)
        elif seconds:
            self.sleep(seconds)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Web"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        with self.server.lock:
            self.server.asked[path] += 1
            self.server.headers_seen.setdefault(path, []).append(dict(self.headers.items()))
            self.server.active += 1
            self.server.most_active = max(self.server.most_active, self.server.active)
        try:
            page = self.server.pages.get(path)
            if page is None:
                self.give(b"", 404)
            else:
                page(self)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.lock:
                self.server.active -= 1

    @property
    def count(self) -> int:
        return self.server.asked[self.path.partition("?")[0]]

    def give(self, data: bytes, status: int = 200, kind: str = "image/png", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


class Web(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self.headers_seen: dict[str, list[dict[str, str]]] = {}
        self.lock = threading.Lock()
        self.active = self.most_active = 0

    def handle_error(self, *_: Any) -> None:
        pass

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def page(self, path: str, data: bytes = b"ok", status: int = 200, kind: str = "image/png", **headers: str) -> str:
        self.pages[path] = lambda h: h.give(data, status, kind, **headers)
        return self.url(path)

    def on(self, path: str) -> Callable[[Answer], str]:
        def keep(answer: Answer) -> str:
            self.pages[path] = answer
            return self.url(path)

        return keep

    def cut(self, path: str, data: bytes, at: int, times: int = 1, *, ranges: bool = True) -> str:
        """The connection breaks after `at` bytes, `times` times; the rest can be asked for where `ranges`."""

        def answer(h: Handler) -> None:
            begin = int(h.headers["Range"].removeprefix("bytes=").rstrip("-")) if ranges and "Range" in h.headers else 0
            h.send_response(206 if begin else 200)
            h.send_header("Content-Type", "image/png")
            h.send_header("Content-Length", str(len(data) - begin))
            if ranges:
                h.send_header("ETag", '"v1"')
            if begin:
                h.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            h.end_headers()
            if h.count <= times:
                h.wfile.write(data[begin : begin + at])
                h.wfile.flush()
                h.connection.shutdown(socket.SHUT_RDWR)
                h.close_connection = True
            else:
                h.wfile.write(data[begin:])

        return self.on(path)(answer)

    def drip(self, path: str, pause: float = 0.05, count: int = 200) -> str:
        def answer(h: Handler) -> None:
            h.send_response(200)
            h.send_header("Content-Type", "image/png")
            h.send_header("Content-Length", str(count))
            h.end_headers()
            for _ in range(count):
                h.wfile.write(b"x")
                h.wfile.flush()
                time.sleep(pause)

        return self.on(path)(answer)


@contextlib.contextmanager
def web() -> Iterator[Web]:
    server = Web()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
