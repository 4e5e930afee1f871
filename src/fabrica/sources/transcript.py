"""Transcripts beside a recording (.json, .vtt, .srt) -> timed words; the transcriber that needs no model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import safe
from fabrica.errors import Refused
from fabrica.types import Blob, Item, Origin, Region

SUFFIXES = (".json", ".vtt", ".srt")
_LIMITS = replace(safe.LIMITS, file_bytes=64 * safe.MIB)
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_CUE = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}")
_INLINE = re.compile(rf"<{_TIME}>")
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>|\{\\[^{}]{0,100}\}")

Word = tuple[float, float, str, float | None]  # start, end (seconds), word, confidence


class Sidecar:
    """The words of the transcript beside a recording: the same name with .json, .vtt or .srt, in that order.

    A `Blob` is looked for beside its own file, any other item at `root` / its origin's key (never outside `root`).
    `Refused("no_transcript")` where there is none, `Refused("transcript_bad")` where it cannot be read. `role` is that
    of the regions.
    """

    version = "1"

    def __init__(self, root: str | Path = ".", *, role: str = "audio") -> None:
        self.root, self.role, self.name = Path(root), role, "sidecar@1"

    def __call__(self, item: Item, /) -> tuple[Region, ...]:
        """Words in order as time regions."""
        path = self._find(item)
        data = safe.read_bytes(path, _LIMITS)
        origin = replace(item.origin, sha256=safe.sha256(data)).then(f"transcript:{path.suffix[1:]}")
        return regions(words(data, path.suffix), origin, self.role)

    def _find(self, item: Item) -> Path:
        if isinstance(item.value, Blob):
            media = Path(item.value.path)
        else:
            media = self.root / item.origin.key
            if not media.resolve().is_relative_to(self.root.resolve()):
                raise Refused("no_transcript", f"{item.origin.key!r} lies outside {str(self.root)!r}")
        for suffix in SUFFIXES:
            for path in (media.with_suffix(suffix), media.with_name(media.name + suffix)):
                if path.is_file() and path != media:
                    return path
        raise Refused("no_transcript", f"no {', '.join(SUFFIXES)} beside {media.name!r}")


def words(data: bytes, suffix: str) -> list[Word]:
    """The timed words of a transcript; a cue that has one time for many words shares it among them by their length.

    JSON: a list of words, {"words": [...]} or {"segments": [...]} as Whisper writes it; a word is {"word" or "text",
    "start", "end", "score" or "probability"}.

    >>> words(b"1\\n00:00:01,000 --> 00:00:02,000\\nno effusion\\n", ".srt")
    [(1.0, 1.2, 'no', None), (1.2, 2.0, 'effusion', None)]
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("transcript_bad", "the transcript is not UTF-8") from error
    found = list(_json_words(text) if suffix == ".json" else _cue_words(text))
    last = 0.0
    for start, end, word, _ in found:
        if not (math.isfinite(start) and math.isfinite(end) and 0 <= start <= end and start >= last - 1e-6):
            raise Refused("transcript_bad", f"word {word[:40]!r} from {start} to {end} s is out of order")
        last = start
    return found


def shared(start: float, end: float, text: str, score: float | None = None) -> Iterator[Word]:
    """The words of a text over its time, each as long as its letters."""
    parts = text.split()
    total = sum(map(len, parts))
    begun = 0
    for part in parts:
        done = begun + len(part)
        at = [start + (end - start) * n / total for n in (begun, done)]
        yield round(at[0], 6), round(at[1], 6), part, score
        begun = done


def regions(found: Iterable[Word], origin: Origin, role: str) -> tuple[Region, ...]:
    """Words as time regions."""
    return tuple(
        Region(role, "time", np.array([start, end]), "word", origin, text=word, score=score)
        for start, end, word, score in found
    )


def _seconds(hours: str | None, minutes: str, seconds: str, fraction: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _cue_words(text: str) -> Iterator[Word]:
    for block in re.split(r"\r?\n[ \t]*(?:\r?\n)+", text.strip()):
        lines = block.splitlines()
        at = next((n for n, line in enumerate(lines[:3]) if _CUE.match(line)), None)
        if at is None:
            if "-->" in block:
                raise Refused("transcript_bad", f"a cue without times that can be read: {lines[0][:60]!r}")
            continue  # WEBVTT, NOTE, STYLE
        times = _CUE.match(lines[at])
        assert times is not None
        start, end = _seconds(*times.groups()[:4]), _seconds(*times.groups()[4:])
        pieces = _INLINE.split(" ".join(lines[at + 1 :]))  # text, then (h, m, s, ms, text)*
        marks = [start, *[_seconds(*pieces[n : n + 4]) for n in range(1, len(pieces), 5)], end]
        for n, piece in enumerate(pieces[::5]):
            yield from shared(marks[n], max(marks[n], marks[n + 1]), _TAG.sub("", piece))


def _json_words(text: str) -> Iterator[Word]:
    try:
        yield from _listed(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused("transcript_bad", f"no timed words in the JSON: {type(error).__name__} {error}") from error


def _listed(data: Any) -> Iterator[Word]:
    if isinstance(data, dict):
        data = data["words"] if "words" in data else data["segments"]
    for row in data:
        if row.get("words"):
            yield from _listed(row)
            continue
        score = row.get("score", row.get("probability"))
        said = str(row["word"] if "word" in row else row["text"])
        yield from shared(float(row["start"]), float(row["end"]), said, None if score is None else float(score))
