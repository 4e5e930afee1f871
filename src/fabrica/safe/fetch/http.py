"""One try at one URL: the address checked and connected to, redirects followed, headers judged, bytes counted."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from dataclasses import dataclass
from http import cookiejar
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from fabrica.errors import Refused, need
from fabrica.safe.address import Lookup, resolve
from fabrica.safe.fetch.outcome import PORTS, REFUSED, Clock, Fetched, Policy, Reason
from fabrica.safe.limits import human
from fabrica.safe.polite import opted_out, retry_after
from fabrica.safe.whole import write_whole

if TYPE_CHECKING:
    import httpx


class Stop(Exception):
    """One try ended without the bytes."""

    def __init__(self, reason: Reason, detail: str, status: int = 0, after: float | None = None) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.status, self.after = reason, detail, status, after


@dataclass(slots=True)
class Body:
    """Bytes that have come so far, and by what the server can be asked for the rest of the same thing."""

    out: BinaryIO
    size: int = 0
    mark: str = ""  # ETag or Last-Modified
    url: str = ""  # where redirects led
    note: Path | None = None  # where url and mark are written down, for a later run

    def restart(self) -> None:
        self.out.seek(0)
        self.out.truncate()
        self.size, self.mark, self.url = 0, "", ""

    def begin(self, asked: str, at: str, mark: str) -> None:
        """Bytes will come from `at`."""
        if (at, mark) != (self.url, self.mark) and self.note is not None:
            with write_whole(self.note) as file:
                file.write(json.dumps({"url": asked, "at": at, "mark": mark}).encode())
        self.url, self.mark = at, mark


class Http:
    """HTTP within a policy. Threads may share it."""

    def __init__(self, policy: Policy, clock: Clock, by: Lookup, *, private: bool) -> None:
        need("httpx", "web")
        self.policy, self.clock, self.private, self.by = policy, clock, private, by
        self.clients: dict[tuple[str, str, int], httpx.Client] = {}
        self.lock = threading.Lock()
        self.tls: Any = None

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients.values():
            client.close()
        self.clients.clear()

    def ask(self, url: str, at: str, body: Body, end: float) -> Fetched | str:
        """The bytes, or where a redirect leads."""
        import httpx

        client, request = self._request(at, body)
        try:
            answer = client.send(request, stream=True)
            try:
                if answer.status_code in (301, 302, 303, 307, 308) and "location" in answer.headers:
                    self._reserved(answer)
                    return urljoin(at, answer.headers["location"])
                self._judge(answer, body)
                return self._read(url, at, answer, body, end)
            finally:
                answer.close()
        except httpx.TimeoutException as error:
            raise Stop(Reason.TIMEOUT, type(error).__name__) from error
        except httpx.ConnectError as error:
            tls = "SSL" in str(error) or "CERTIFICATE" in str(error).upper()
            raise Stop(Reason.TLS if tls else Reason.CONNECT, str(error)) from error
        except (httpx.ReadError, httpx.RemoteProtocolError, httpx.CloseError, httpx.WriteError) as error:
            cut = "without sending complete" in str(error) or isinstance(error, httpx.ReadError)
            raise Stop(Reason.TRUNCATED if cut else Reason.PROTOCOL, str(error)) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, UnicodeError, ValueError) as error:
            raise Stop(Reason.PROTOCOL, f"{type(error).__name__}: {error}") from error

    def _request(self, at: str, body: Body) -> tuple[httpx.Client, httpx.Request]:
        """The request to the address that was checked, with the host's name in `Host` and in TLS."""
        import httpx

        scheme, host, port = self.checked(at)
        try:
            address = resolve(host, port, private=self.private, by=self.by)
        except Refused as error:
            raise Stop(REFUSED[error.code], str(error)) from error
        client = self._client(scheme, host, port)
        headers = {"Host": urlsplit(at).netloc, "User-Agent": self.policy.agent, "Accept-Encoding": "identity"}
        headers["Accept"] = ", ".join(self.policy.accept) or "*/*"
        if body.size and body.mark and body.url == at:
            headers |= {"Range": f"bytes={body.size}-", "If-Range": body.mark}
        parts = urlsplit(at)
        literal = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
        try:
            request = client.build_request("GET", target, headers=headers, extensions={"sni_hostname": host})
        except (httpx.InvalidURL, ValueError, TypeError) as error:
            raise Stop(Reason.URL, f"the URL cannot be asked: {type(error).__name__}") from error
        request.extensions["timeout"] = {
            "connect": self.policy.connect_seconds, "read": min(self.policy.seconds, 20.0), "write": 20.0, "pool": 60.0,
        }  # fmt: skip
        return client, request

    def checked(self, at: str) -> tuple[str, str, int]:
        try:
            parts = urlsplit(at)
            port = parts.port or {"http": 80}.get(parts.scheme, 443)
            host = (parts.hostname or "").encode("idna").decode() if parts.hostname else ""
        except (ValueError, UnicodeError) as error:
            raise Stop(Reason.URL, f"no URL: {error}") from error
        if parts.scheme not in self.policy.schemes:
            raise Stop(Reason.SCHEME, f"scheme {parts.scheme[:20]!r}; allowed: {', '.join(self.policy.schemes)}")
        if not host or parts.username is not None or parts.password is not None or any(c in at for c in "\r\n\t \0"):
            raise Stop(Reason.URL, "the URL names no host, or carries a user name, a password or white space")
        if port not in PORTS and not self.private:
            raise Stop(Reason.URL, f"port {port}; allowed: {', '.join(map(str, PORTS))}")
        return parts.scheme, host, port

    def _client(self, scheme: str, host: str, port: int) -> httpx.Client:
        """One client a host, so that a connection is never shared by two names; the 64 used last stay open."""
        import ssl

        import httpx

        with self.lock:
            client = self.clients.pop((scheme, host, port), None)
            if client is None:
                self.tls = self.tls or ssl.create_default_context()
                jar = cookiejar.CookieJar(cookiejar.DefaultCookiePolicy(allowed_domains=[]))
                limits = httpx.Limits(max_connections=max(8, self.policy.per_host), max_keepalive_connections=2)
                client = httpx.Client(verify=self.tls, trust_env=False, cookies=jar, limits=limits)
            self.clients[(scheme, host, port)] = client
            idle = list(self.clients)[:-64]
            for key in idle:  # requests that still run there end with an error that is tried again
                self.clients.pop(key).close()
            return client

    # ------------------------------------------------------------ answers

    def _reserved(self, answer: httpx.Response) -> None:
        if self.policy.opt_out and (
            why := opted_out(answer.headers.multi_items(), self.policy.agent, self.policy.opt_out)
        ):
            raise Stop(Reason.OPT_OUT, why, answer.status_code)

    def _judge(self, answer: httpx.Response, body: Body) -> None:
        """Refuse by status and headers, before a byte of the content is read."""
        code = answer.status_code
        if code in (429, 503):
            raise Stop(Reason.BUSY, f"status {code}", code, retry_after(answer.headers, self.clock.unix()))
        if code >= 500 or code in (408, 425):
            raise Stop(Reason.SERVER, f"status {code}", code, retry_after(answer.headers, self.clock.unix()))
        if code in (404, 410):
            raise Stop(Reason.NOT_FOUND, f"status {code}", code)
        if code in (401, 402, 403, 407, 451):
            raise Stop(Reason.FORBIDDEN, f"status {code}", code)
        if code == 416 and body.size:
            body.restart()
            raise Stop(Reason.TRUNCATED, "the rest is not there any more", code)
        if code not in (200, 206):
            raise Stop(Reason.STATUS, f"status {code}", code)
        self._reserved(answer)
        media = _media(answer)
        if self.policy.accept and not any(_fits(media, a) for a in self.policy.accept):
            raise Stop(Reason.MEDIA_TYPE, f"media type {media[:60]!r}; wanted {', '.join(self.policy.accept)}", code)
        if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Stop(Reason.ENCODING, "the content is packed, which was not asked for", code)

    def _read(self, url: str, at: str, answer: httpx.Response, body: Body, end: float) -> Fetched:
        if answer.status_code == 206:
            begin = answer.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0]
            if not body.size or begin != str(body.size) or _mark(answer) not in ("", body.mark):
                body.restart()
                raise Stop(Reason.TRUNCATED, "another part came than was asked for", 206)
        else:
            body.restart()
        body.begin(url, at, _mark(answer) or body.mark)
        said = answer.headers.get("content-length", "")
        if said.isascii() and said.isdigit() and int(said[:18]) + body.size > self.policy.max_bytes:
            raise Stop(Reason.TOO_LARGE, f"{human(int(said[:18]))} of at most {human(self.policy.max_bytes)}", 200)
        for chunk in answer.iter_raw():
            if body.size + len(chunk) > self.policy.max_bytes:
                raise Stop(Reason.TOO_LARGE, f"more than {human(self.policy.max_bytes)}", 200)
            body.out.write(chunk)
            body.size += len(chunk)
            if self.clock.now() > end:
                raise Stop(Reason.TIMEOUT, f"not whole after {self.policy.seconds:g} s", 200)
        body.out.seek(0)
        digest = hashlib.file_digest(body.out, "sha256").hexdigest()  # type: ignore[arg-type]
        data = body.out.getvalue() if isinstance(body.out, io.BytesIO) else None
        return Fetched(url, at, 200, _media(answer), digest, body.size, data)


# ---------------------------------------------------------------- small


def _media(answer: httpx.Response) -> str:
    return str(answer.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _fits(media: str, wanted: str) -> bool:
    return media == wanted or (wanted.endswith("/*") and media.startswith(wanted[:-1]))


def _mark(answer: httpx.Response) -> str:
    """A strong ETag or a date, by which the rest of the same thing can be asked for."""
    etag = str(answer.headers.get("etag", ""))
    return etag if etag.startswith('"') else str(answer.headers.get("last-modified", ""))
