"""The secret of a de-identification: pseudonyms, UIDs and date shifts that only its holder can tie to a patient.

Everything is HMAC-SHA-256 of the secret and a purpose, so that nothing needs a table of patients on disk: the same key
gives the same patient the same pseudonym, UIDs and shift in every file, format and run.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from fabrica.errors import Refused, UsageError

SIZE = 32  # bytes of secret
LEAST_DAYS, SPAN_DAYS = 365, 3650  # a shift goes back by LEAST_DAYS ... LEAST_DAYS + SPAN_DAYS - 1 whole days
_REGISTERED = "1.2.840.10008."  # UIDs that the standard defines: classes, syntaxes, frames of reference


class Key:
    """A secret, never printed, logged or put in a plan's signature; `version` is its fingerprint.

    >>> key = Key(bytes(range(32)))
    >>> key
    Key(fingerprint='52fdcf48')
    >>> key.uid("1.2.3") == key.uid("1.2.3"), key.uid("1.2.840.10008.1.2")
    (True, '1.2.840.10008.1.2')
    """

    __slots__ = ("_path", "_secret", "version")
    name = "deid_key"

    def __init__(self, secret: bytes) -> None:
        self._path: Path | None = None
        if len(secret) < SIZE:
            raise UsageError(f"a key of {len(secret)} bytes; wanted at least {SIZE} random ones")
        self._secret = bytes(secret)
        self.version = self.mac("fingerprint")[:4].hex()

    def __repr__(self) -> str:
        return f"Key(fingerprint={self.version!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Workers get the path of the key's file, never the secret."""
        if self._path is None:
            raise TypeError("a key that is in no file is not pickled; load it with Key.load")
        return Key.load, (self._path,)

    @classmethod
    def load(cls, path: str | Path) -> Key:
        """The key in a file that only its owner may read. `Refused("key_mode")` where others may, `key_bytes`."""
        path = Path(path)
        if not path.is_file():
            raise UsageError(
                f"there is no key file {str(path)!r}; make one with Key.create or `fabrica deid --new-key`"
            )
        if path.stat().st_mode & 0o077:
            raise Refused("key_mode", f"the key file {path.name!r} can be read by others; run: chmod 600 {path.name}")
        try:
            key = cls(bytes.fromhex(path.read_text("ascii").strip()))
            key._path = path.resolve()
            return key
        except (ValueError, UnicodeDecodeError):
            raise Refused("key_bytes", f"the key file {path.name!r} does not hold hexadecimal digits") from None

    @classmethod
    def create(cls, path: str | Path) -> Key:
        """A new random key in a new file (mode 0600). `UsageError` where the file exists: a lost key cannot be had
        again, and an overwritten one would break every pseudonym given so far."""
        path, secret = Path(path), secrets.token_bytes(SIZE)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise UsageError(f"{str(path)!r} exists already; a key is never overwritten") from None
        with os.fdopen(fd, "w") as out:
            out.write(secret.hex() + "\n")
            out.flush()
            os.fsync(out.fileno())
        return cls.load(path)

    def mac(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that the parts and the purpose give under this key; parts of different splits differ."""
        text = "".join(f"{len(part)}:{part}" for part in (purpose, *parts))
        return hmac.new(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def pseudonym(self, kind: str, value: str, digits: int = 16) -> str:
        """A hexadecimal name for an identifier of a kind ("subject", "study", "file" ...)."""
        return self.mac("pseudonym", kind, value).hex()[:digits]

    def uid(self, uid: str) -> str:
        """The UID that takes the place of `uid` everywhere: 2.25 and a 128-bit number (PS3.5 B.2).

        UIDs of the DICOM registry say what a thing is, not whose it is, and stay.
        """
        uid = uid.strip(" \0")
        if uid.startswith(_REGISTERED) and re.fullmatch(r"[0-9.]{1,64}", uid):
            return uid
        number = bytearray(self.mac("uid", uid)[:16])
        number[6] = number[6] & 0x0F | 0x80  # RFC 9562 version 8, a UUID of own making
        number[8] = number[8] & 0x3F | 0x80
        return f"2.25.{int.from_bytes(number, 'big')}"

    def days(self, subject: str) -> int:
        """Whole days to add to every date of this subject: negative, the same wherever the subject occurs."""
        return -(LEAST_DAYS + int.from_bytes(self.mac("days", subject)[:8], "big") % SPAN_DAYS)


def shifted(day: dt.date, days: int) -> dt.date | None:
    """The day moved, or None outside the calendar's years 1-9999.

    >>> shifted(dt.date(2020, 3, 1), -1)
    datetime.date(2020, 2, 29)
    """
    try:
        return day + dt.timedelta(days=days)
    except OverflowError:
        return None
