"""De-identification as a step: texts, spans, keys, groups, links, ages and pictures of records; through the engine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fabrica.curate.deid.key import Key
from fabrica.curate.deid.steps import Deidentify, known_of
from fabrica.curate.engine.plan import signature
from fabrica.types import Absent, Blob, Item, Link, Origin, Record, Region

KEY = Key(bytes(range(32)))
ORIGIN = Origin("clinic", "Doe_Jane/report.txt", "ab" * 32, "CC0-1.0")


def record(text: str = "Mr. Okonkwo, seen 2020-03-01, has an effusion.", **changes: Any) -> Record:
    at = text.index("effusion") if "effusion" in text else 0
    span = Region("report", "span", np.array([at, at + 8]), "effusion", ORIGIN, text="effusion of Mr. Okonkwo")
    made = Record(
        "r1", "s1", {"modality": "xray", "study": "0123456789abcdef", "ward": "Ward 7 Doe"},
        {"report": (Item("text", text, ORIGIN),)}, (span,), {"age": 93.0, "effusion": 1.0, "stage": Absent.NOT_DONE},
        (Link("same_subject", "r2"), Link("cites", "pmid:12345")),
    )  # fmt: skip
    return made.updated(**changes)


def run(*records: Record, **options: Any) -> tuple[list[Record], list[str]]:
    dropped: list[str] = []
    return list(Deidentify(key=KEY, **options)(records, lambda r, why: dropped.append(why))), dropped


def test_texts_spans_keys_and_ages() -> None:
    (out,), _ = run(record())
    text, (span,) = out.first("report").text(), out.regions
    assert text.startswith("Mr. [NAME], seen 20")
    assert "2020-03-01" not in text
    assert text[slice(*span.data)] == "effusion"
    assert span.text == "effusion of Mr. [NAME]"
    assert out.labels == {"age": 90.0, "effusion": 1.0, "stage": Absent.NOT_DONE}
    assert (out.groups["modality"], out.groups["study"] == "0123456789abcdef") == ("xray", False)
    assert "Doe" not in out.groups["ward"]
    origin = out.first("report").origin
    assert "Doe" not in origin.key
    assert origin.sha256 != ORIGIN.sha256
    assert (origin.source, origin.licence, origin.steps) == ("clinic", "CC0-1.0", ("deidentify",))


def test_ids_and_links_stay_joined() -> None:
    (a, b), _ = run(record(), record(id="r2", links=(Link("same_subject", "r1"),)))
    assert a.links == (Link("same_subject", b.id), Link("cites", "pmid:12345"))
    assert b.links == (Link("same_subject", a.id),)
    assert a.subject == b.subject != "s1"


def test_blobs_are_withheld_and_tables_lose_high_ages() -> None:
    slide = Item("slide", Blob("/scans/Doe_Jane.svs", "image/x", 9, "00"), ORIGIN)
    row = Item("table", np.array([93.0, 1.0], np.float32), ORIGIN, names=("age", "Dr. Okonkwo"))
    (out,), _ = run(record(items={"slide": (slide,), "row": (row,)}, regions=()))
    assert out.items["slide"][0].value is Absent.WITHHELD
    assert out.items["row"][0].value.tolist() == [90.0, 1.0]
    assert out.items["row"][0].names == ("age", "Dr. [NAME]")


def picture(text: str = "") -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    made = Image.new("L", (200, 100), 10)
    ImageDraw.Draw(made).text((20, 20), text, fill=255, font=ImageFont.load_default(14))
    return np.asarray(made)


def with_picture(value: np.ndarray, modality: str) -> Record:
    return record(items={"image": (Item("image", value, ORIGIN),)}, regions=(), groups={"modality": modality})


def test_pictures_with_text_and_of_unknown_kind_fail_closed() -> None:
    kept, dropped = run(
        with_picture(picture(), "xray"), with_picture(picture("DOE JANE"), "xray"),
        with_picture(picture(), "ultrasound"),
        record(items={"image": (Item("image", picture(), ORIGIN),)}, regions=(), groups={}),
    )  # fmt: skip
    assert len(kept) == 1
    assert dropped == ["burned_in", "unknown_picture", "unknown_picture"]
    (masked,), _ = run(with_picture(picture("DOE JANE"), "xray"), mask=True)
    assert masked.first("image").array().max() <= 10


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60), st.text(max_size=20))
def test_any_record_is_cleaned_the_same_twice(text: str, subject: str) -> None:
    (a,), _ = run(record(text, subject=subject, regions=()))
    (b,), _ = run(record(text, subject=subject, regions=()))
    assert a == b


def test_known_names_of_a_linked_table_go() -> None:
    known = known_of([{"last_name": "Zyx", "mrn": "Q77", "sbp": "120"}])
    (out,), _ = run(record("zyx (q77) has an effusion; BP 120."), known=known)
    assert out.first("report").text() == "[NAME] ([ID]) has an effusion; BP 120."


def test_the_signature_tells_the_key_apart_and_not_what_it_is() -> None:
    said = json.dumps(signature(Deidentify(key=KEY)))
    assert KEY.version in said
    assert bytes(range(32)).hex() not in said
    assert said != json.dumps(signature(Deidentify(key=Key(bytes(range(1, 33))))))


def test_it_runs_in_a_plan(tmp_path: Path) -> None:
    from fabrica.corpus import Corpus
    from fabrica.curate import run as curate

    corpus = Corpus.at(tmp_path / "corpus")
    corpus.append([record(id=f"{n:024x}", subject=f"s{n % 3}", regions=(), links=()) for n in range(9)])
    report = curate([Deidentify(key=KEY)], corpus, tmp_path / "clean")
    assert (report.read, report.kept) == (9, 9)
    cleaned = list(Corpus.open(tmp_path / "clean").scan())
    assert len({r.subject for r in cleaned}) == 3
    assert not any("Okonkwo" in r.first("report").text() for r in cleaned)
