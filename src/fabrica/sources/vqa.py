"""Questions about images (VQA-RAD's JSON: a list of rows with image, question, answer) -> one record an image.

Layout: items `image`, `question` and `answer`, as many of both, in the file's order; an answer's `names` are its kind
("closed", "open" or "") and the question's type. The subject is the image, so that its questions are in one split.
Images lie beside the file or in its folder `images`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits, sha256
from fabrica.sources import Quarantined, Ref, rights_of
from fabrica.sources.attach import attach, inside
from fabrica.sources.jsons import parse
from fabrica.sources.stream import open_text
from fabrica.types import Item, Origin, Record, record_id

_KEYS = tuple(re.compile(rb'"%s"\s*:' % key) for key in (b"image", b"question", b"answer"))


def is_vqa(head: bytes) -> bool:
    """Whether a JSON file that begins with `head` holds such rows.

    >>> is_vqa(b'[{"image": "a.png", "question": "Which side?", "answer": "left"}]')
    True
    """
    return head.lstrip()[:1] == b"[" and all(key.search(head) for key in _KEYS)


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """A record an image, in order of first mention. Quarantined by itself: an image that cannot be read (with the
    reader's own code, or `path_outside`, `missing_file`), a row without question or answer (`no_question`)."""
    with open_text(ref.path, limits) as file:
        rows = parse(file.read(limits.file_bytes), limits)
    if not isinstance(rows, list):
        raise Refused("questions_bad", f"{ref.path.name!r} holds no list of questions")
    by_image: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for number, row in enumerate(rows):
        texts = [row.get(k) for k in ("image", "question", "answer")] if isinstance(row, dict) else []
        if len(texts) == 3 and all(isinstance(t, str) and t.strip() for t in texts):
            by_image.setdefault(str(texts[0]), []).append((number, row))
            continue
        mark = sha256(repr(row).encode("utf-8", "surrogatepass"))
        yield Quarantined(f"{ref.key}#{number}", mark, "no_question", "a row without image, question or answer")
    for name, asked in by_image.items():
        key = f"{ref.key}#{asked[0][0]}"
        try:
            yield _record(ref, name, asked, limits)
        except Refused as error:
            message = str(error).removesuffix(f" [{error.code}]")
            yield Quarantined(key, sha256(name.encode("utf-8", "surrogatepass")), error.code, message)


def _record(ref: Ref, name: str, asked: list[tuple[int, Mapping[str, Any]]], limits: Limits) -> Record:
    folder = ref.path.parent
    path = inside(folder / "images", name) if (folder / "images").is_dir() else inside(folder, name)
    shown = attach(path, ref, ref.licence, limits)
    image = shown.first("image")
    if image is None:
        raise Refused("no_image", "the file that is named holds no single picture")
    questions, answers = [], []
    for number, row in asked:
        origin = Origin(ref.source, f"{ref.key}#{number}", image.origin.sha256, ref.licence, by="human")
        kind = str(row.get("answer_type", "")).strip().lower()
        names = (kind if kind in ("closed", "open") else "", str(row.get("question_type", "")).strip().lower())
        questions.append(Item("text", row["question"].strip(), origin))
        answers.append(Item("text", row["answer"].strip(), origin, names=names))
    items = {"image": (image,), "question": tuple(questions), "answer": tuple(answers)}
    subject = record_id("image", ref.source, name)[:16]
    groups = {"modality": ref.get("modality") or "radiology"}
    return Record(record_id(ref.source, "vqa", name), subject, groups, items, rights=rights_of(ref))
