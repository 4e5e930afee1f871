"""Any OpenAI-compatible endpoint as a chat model: an address that the user gave, retries, a rate, hard limits."""

from __future__ import annotations

import contextlib
import email.utils
import importlib
import ipaddress
import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from fabrica.chat.parts import as_openai
from fabrica.chat.request import Asked, ChatFailed, Request
from fabrica.errors import Refused, UsageError, need
from fabrica.types import Reply

_LONGEST_WAIT = 60.0  # seconds between two tries
_LARGEST = 16 << 20  # bytes of one answer


class Endpoint(Asked):
    """A model behind `POST {base_url}/chat/completions` (vLLM, llama.cpp, Ollama, a vendor).

    `base_url` is always the user's own: nothing is taken from the environment, and nothing is opened without
    `allow_network`, not even to this machine. https, or plain http to a private or local address. No redirect is
    followed. The key is read from the environment variable `key_env` at the first call.

    `timeout` seconds bound one try as a whole. 408, 409, 429, 5xx, timeouts, broken connections and answers that are
    no chat completion are tried `retries` more times, after `backoff` * 2^n seconds or what Retry-After asks for (at
    most 60); then `ChatFailed`. `per_minute` and `concurrency` limit what is sent. Images go as PNG data URLs with
    longest side `max_side`. A schema goes as response_format, or in words where `json_schema` is False.
    """

    def __init__(
        self, base_url: str, model: str, *, allow_network: bool = False, key_env: str = "", timeout: float = 60.0,
        retries: int = 4, backoff: float = 0.5, per_minute: float | None = None, concurrency: int = 8,
        max_side: int = 1024, json_schema: bool = True, logprobs: bool = False, name: str = "",
    ) -> None:  # fmt: skip
        if not allow_network:
            raise Refused("network_off", f"{base_url[:80]!r} would need the network; pass allow_network=True")
        if timeout <= 0 or retries < 0 or concurrency < 1 or (per_minute is not None and per_minute <= 0):
            raise UsageError("timeout and per_minute must be above 0, retries 0 or more, concurrency 1 or more")
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise Refused("url_host", "base_url wants http(s)://host[:port]/v1 without a user name or password")
        self.base_url, self.model, self.name = base_url, model, name or model
        self.key_env, self.timeout, self.retries, self.backoff = key_env, timeout, retries, backoff
        self.per_minute, self.concurrency, self.max_side = per_minute, concurrency, max_side
        self.json_schema, self.logprobs = json_schema, logprobs
        self._open()

    def _open(self) -> None:
        self._client: Any = None
        self._lock, self._free, self._next = threading.Lock(), threading.Semaphore(self.concurrency), 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_client", "_lock", "_free", "_next")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def answer(self, request: Request) -> Reply:
        """The endpoint's reply, after as many tries as it needs and may have."""
        body = self._body(request)
        with self._free:
            for attempt in range(self.retries + 1):
                self._turn()
                try:
                    return self._reply(_parsed(self._post(body)))
                except _Again as again:
                    if attempt == self.retries:
                        tries = f" ({attempt + 1} tries)" if attempt else ""
                        raise ChatFailed(again.code, f"{self.name}: {again}{tries}") from again.__cause__
                    wait = max(again.after, self.backoff * 2**attempt * random.uniform(0.75, 1.25))
                    time.sleep(min(wait, _LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model, "messages": as_openai(request.messages, self.max_side),
            "max_tokens": request.max_tokens, "temperature": request.temperature, "seed": request.seed,
        }  # fmt: skip
        if self.logprobs:
            body["logprobs"] = True
        if request.schema is not None and self.json_schema:
            wanted = {"name": "reply", "schema": dict(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        elif request.schema is not None:
            told = f"Answer with JSON alone that obeys this schema: {json.dumps(request.schema)}"
            body["messages"].append({"role": "user", "content": told})
        return body

    def _turn(self) -> None:
        """Wait until the rate allows one more."""
        if self.per_minute is None:
            return
        with self._lock:
            now = time.monotonic()
            mine = max(self._next, now)
            self._next = mine + 60.0 / self.per_minute
        time.sleep(max(0.0, mine - now))

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                openai = need("openai", "chat")
                local = check_host(self.base_url)
                key = os.environ.get(self.key_env, "") if self.key_env else "none"
                if not key:
                    raise UsageError(f"the environment variable {self.key_env} with the key is not set")
                http = openai.DefaultHttpxClient(follow_redirects=False, trust_env=not local)
                self._client = openai.OpenAI(
                    base_url=self.base_url, api_key=key, organization="", project="", max_retries=0,
                    timeout=self.timeout, http_client=http,
                )  # fmt: skip
            return self._client

    def _post(self, body: dict[str, Any]) -> bytes:
        """The bytes of one answer, within time and size."""
        client, until = self._connected(), time.monotonic() + self.timeout
        with _errors(self.timeout), client.chat.completions.with_streaming_response.create(**body) as response:
            out = bytearray()
            for part in response.iter_bytes():
                out += part
                if len(out) > _LARGEST:
                    raise ChatFailed("chat_status", f"{self.name}: the answer has more than {_LARGEST} bytes")
                if time.monotonic() > until:
                    raise _Again("chat_timeout", f"no whole answer within {self.timeout:g} s")
            return bytes(out)

    def _reply(self, data: dict[str, Any]) -> Reply:
        choice = data["choices"][0]
        message = choice["message"]
        tokens = [_count(data.get("usage"), k) for k in ("prompt_tokens", "completion_tokens")]
        if not isinstance(message.get("content"), str):
            said = str(message.get("refusal") or "the message holds no text")[:200]
            raise ChatFailed("chat_refused", f"{self.name}: {said}", tokens_in=tokens[0], tokens_out=tokens[1])
        return Reply(message["content"], self.name, tokens[0], tokens[1], _logprobs(choice.get("logprobs")))


class _Again(Exception):
    """A try that failed and may be repeated, after so many seconds at least."""

    def __init__(self, code: str, message: str, after: float = 0.0) -> None:
        super().__init__(message)
        self.code, self.after = code, after


@contextlib.contextmanager
def _errors(timeout: float) -> Iterator[None]:
    """Errors of the client as `_Again` or `ChatFailed`; nothing of the request is repeated in them."""
    openai: Any = need("openai", "chat")
    http: Any = importlib.import_module(_http(openai))
    try:
        yield
    except (openai.APITimeoutError, http.TimeoutException) as error:
        raise _Again("chat_timeout", f"no whole answer within {timeout:g} s") from error
    except openai.APIStatusError as error:
        status = int(error.status_code)
        after = _seconds(error.response.headers.get("retry-after", ""))
        if status == 429:
            raise _Again("chat_rate", "status 429, too many requests", after) from error
        if status >= 500 or status in (408, 409):
            raise _Again("chat_server", f"status {status}", after) from error
        raise ChatFailed("chat_status", f"status {status}: {str(error.message)[:200]}") from error
    except (openai.APIConnectionError, http.HTTPError) as error:
        why = type(error.__cause__ or error).__name__
        raise _Again("chat_unreachable", f"the connection failed ({why})") from error


def _http(openai: Any) -> str:
    """The HTTP library below this version of the client: httpx or its successor."""
    modules = (str(base.__module__).split(".")[0] for base in openai.DefaultHttpxClient.__mro__)
    return next(name for name in modules if name.startswith("httpx"))


def _seconds(text: str) -> float:
    """Retry-After as seconds: a number or an HTTP date; 0 for anything else.

    >>> _seconds("1.5"), _seconds("soon"), _seconds("nan")
    (1.5, 0.0, 0.0)
    """
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        value = float(text)
        return min(max(value, 0.0), _LONGEST_WAIT) if value == value else 0.0
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return min(max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0), _LONGEST_WAIT)
    return 0.0


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
        if isinstance(data["choices"][0]["message"], dict):
            return dict(data)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise _Again("chat_junk", f"{len(body)} bytes that are no chat completion") from error
    raise _Again("chat_junk", f"{len(body)} bytes that are no chat completion")


def _count(usage: Any, key: str) -> int:
    value = usage.get(key) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0


def _logprobs(data: Any) -> tuple[tuple[str, float], ...] | None:
    content = data.get("content") if isinstance(data, dict) else None
    if not isinstance(content, list):
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return tuple((str(c["token"]), float(c["logprob"])) for c in content)
    return None


def check_host(base_url: str) -> bool:
    """Whether the address is private or local; `Refused` where plain http would cross a public network."""
    parts = urlsplit(base_url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ChatFailed("chat_unreachable", f"host {parts.hostname!r} cannot be found: {error}") from error
    local = not any(ipaddress.ip_address(str(a[4][0]).split("%")[0]).is_global for a in found)
    if parts.scheme == "http" and not local:
        raise Refused("url_scheme", f"plain http to the public host {parts.hostname!r}; wanted https")
    return local
