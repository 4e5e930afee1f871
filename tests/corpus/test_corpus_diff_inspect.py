"""Differences of versions, record by record; the page of a record, also of hostile ones, in a real browser if any."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus_cases import full, note, records
from hypothesis import HealthCheck, given, settings

from fabrica import curate
from fabrica.corpus import Corpus, record_page
from fabrica.corpus.diff import diff, differing, opened, summary
from fabrica.curate.quality import MissingText
from fabrica.errors import UsageError
from fabrica.types import Item, Link, Origin, Record, Region, Rights

EVIL = "</script><script>alert(1)</script><img src=x onerror=\"document.title='owned'\">"

# ---------------------------------------------------------------- diff


def test_versions_of_one_corpus(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([note("a"), note("b")])
    corpus.append([note("c")])
    found = diff(opened(f"{tmp_path / 'c'}@1"), opened(tmp_path / "c"))
    assert (found.added, found.removed, dict(found.changed), found.same) == (("c",), (), {}, 2)
    back = diff(opened(tmp_path / "c"), opened(f"{tmp_path / 'c'}@1"))
    assert (back.removed, back.reasons) == (("c",), {"not said": 1})


def test_changes_by_field_and_removals_by_the_ledger(tmp_path: Path) -> None:
    source = Corpus.at(tmp_path / "old")
    source.append([note("a"), note("b", ""), note("c"), note("d")])
    curate.run([MissingText()], source, tmp_path / "new")
    found = diff(source, Corpus.open(tmp_path / "new"))
    assert (found.removed, found.same, found.reasons) == (("b",), 3, {"missing_text: no_text": 1})
    other = Corpus.at(tmp_path / "other")
    other.append([note("a", "Other words."), note("c", labels={"x": 1.0}, split="val"), note("e"), note("b", "")])
    found = diff(source, other)
    assert dict(found.changed) == {"a": ("items.report",), "c": ("labels.x", "split")}
    assert (found.added, found.removed, found.fields) == (("e",), ("d",), {"items": 1, "labels": 1, "split": 1})
    assert ("changed", "labels", 1) in summary(found)
    assert json.loads(json.dumps(found.to_json()))["same"] == 1


def test_a_corpus_is_no_different_from_itself(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([full("a"), full("b", "p2", 1), note("c")])
    found = diff(corpus, Corpus.open(tmp_path / "c"))
    assert (found.same, found.added, found.removed, dict(found.changed)) == (3, (), (), {})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records, records)
def test_equal_records_differ_in_nothing_and_others_in_something(a: Record, b: Record) -> None:
    assert list(differing(a, a)) == []
    same = replace(b, id=a.id)
    if list(differing(a, same)) == []:
        assert all(getattr(a, n) == getattr(same, n) for n in ("subject", "split", "labels", "links", "rights"))


@pytest.mark.parametrize("change", [
    {"subject": "q"}, {"split": "test"}, {"rights": Rights("MIT")}, {"links": ()}, {"regions": ()},
    {"labels": {}}, {"groups": {}}, {"items": {}},
])  # fmt: skip
def test_no_change_goes_unseen(change: dict[str, object]) -> None:
    one = full("a")
    assert {f.partition(".")[0] for f in differing(one, one.updated(**change))} == set(change)


def test_a_version_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PATH@NUMBER"):
        opened(f"{tmp_path}/c@first")


# ---------------------------------------------------------------- the page of a record


def page(tmp_path: Path, *some: Record) -> str:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append(some)
    record_page.write(corpus, some[0].id, tmp_path / "record.html")
    return (tmp_path / "record.html").read_text("utf-8")


def view_of(text: str) -> tuple[dict[str, object], np.ndarray]:
    found = re.search(r'<script type="application/json" id="d\d+">(.*?)</script>', text)
    assert found is not None
    data = json.loads(found[1])
    return data, np.frombuffer(base64.b64decode(data["pixels"]), "<i2")


def test_it_shows_everything_that_it_holds(tmp_path: Path) -> None:
    near = {"near_image": "g1"}
    one = full("a").updated(groups={**full("a").groups, **near})
    text = page(tmp_path, one, full("b", "p1", 1), note("twin", groups=near), note("other"))
    for words in (
        "Kein Erguss. 胸水なし", "a/scan.nii", "resampled 1 mm", "lesion", "effusion", "CC-BY-4.0", "A. Author",
        "train", "same subject", "499.9 Hz", "unreadable", "not done",
    ):  # fmt: skip
        assert words in text, words
    assert "<code>b</code>" in text, "another record of the subject"
    assert "<code>twin</code>" in text, "a near-duplicate"
    assert "<code>other</code> (" not in text
    assert "Access is credentialed or restricted" in text


def test_window_and_level_are_in_hounsfield_units(tmp_path: Path) -> None:
    volume = np.arange(-1000, 600, 4, dtype=np.int16).reshape(10, 8, 5)
    item = Item("volume", volume, Origin("s", "k", "", "CC0-1.0"), unit="HU", affine=np.diag([1.0, 1, 3, 1]))
    text = page(tmp_path, Record("ct", "p", {"modality": "ct"}, {"ct": (item,)}))
    data, pixels = view_of(text)
    assert (data["slices"], data["unit"], data["scale"]) == (5, " HU", 1.0)
    assert sorted(pixels.tolist()) == sorted(volume.ravel().tolist())
    assert 'data-w="1500' in text
    assert 'id="s1"' in text
    deep = Item("image", np.linspace(0, 1e-3, 64, dtype=np.float32).reshape(8, 8), Origin("s", "k", "", ""))
    data, pixels = view_of(page(tmp_path / "f", Record("f", "p", items={"image": (deep,)})))
    np.testing.assert_allclose(pixels.reshape(8, 8) * data["scale"] + data["offset"], deep.array(), atol=1e-7)


def test_spans_overlap_reach_out_and_keep_the_text(tmp_path: Path) -> None:
    origin = Origin("s", "k", "", "")
    spans = [("a", 0, 9), ("b", 3, 12), ("c", 40, 50), ("d", 5, 5), ("e", -4, 2), ("f", 30, 9999)]
    regions = [
        (n, Region("report", "span", np.array([s, e]), label, origin)) for n, (label, s, e) in enumerate(spans, 1)
    ]
    text = "Small effusion left, no mass."
    found = record_page.pieces(text, regions)
    assert "".join(p.text for p in found) == text
    assert [p.numbers for p in found] == ["1,5", "1", "1,2", "2", ""]
    assert record_page.pieces("", regions) == ()


def test_outlines_are_where_the_regions_are() -> None:
    item = Item("image", np.zeros((8, 10), np.uint8), Origin("s", "k", "", ""))
    mask = np.zeros((8, 10), bool)
    mask[2:5, 3:7] = True

    def shapes(shape: str, data: np.ndarray) -> list[record_page.Shape]:
        return record_page.outline(Region("image", shape, data, "x", item.origin), item)  # type: ignore[arg-type]

    (border,) = shapes("mask", mask)
    assert set(re.findall(r"M\d+ \d+[HV]\d+", border.path)) == {"M3 2H7", "M3 5H7", "M3 2V5", "M7 2V5"}
    (box,) = shapes("box", np.array([6.0, 5.0, 2.0, 1.0]))
    assert (box.x, box.y, box.w, box.h) == (2, 1, 4, 4)
    assert shapes("mask", np.ones((3, 3), bool)) == []
    assert shapes("box", np.array([np.nan, 0, 1, 1])) == []
    assert shapes("polygon", np.array([[0, 0], [4, 0], [4, 4]]))[0].path.endswith("Z")


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    origin = Origin(EVIL, EVIL, EVIL, EVIL, steps=(EVIL,))
    item = Item("text", EVIL, origin, unit=EVIL, names=(EVIL,))
    span = Region("report", "span", np.array([3, 9]), EVIL, origin, text=EVIL)
    number = Item("table", np.array([1.0]), origin, names=(EVIL,))
    one = Record(
        EVIL, EVIL, {EVIL: EVIL, "modality": EVIL, "near_image": EVIL}, {"report": (item,), EVIL: (number,)}, (span,),
        {EVIL: 1.0}, (Link(EVIL, EVIL),), Rights(EVIL, consent=EVIL, attribution=EVIL),
    )  # fmt: skip
    text = page(tmp_path, one)
    assert "<img src=x" not in text
    assert text.count("<script") == 1, "the page's own"
    assert re.search(r"script-src 'nonce-([0-9a-f]{24})'", text) is not None
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)


def test_content_whose_consent_was_withdrawn_is_not_shown(tmp_path: Path) -> None:
    gone = Rights("CC0-1.0", consent="withdrawn")
    text = page(tmp_path, note("a", "SECRET words", rights=gone, labels={"SECRET": 1.0}, groups={"site": "SECRET"}))
    assert "SECRET" not in text
    assert "Consent was withdrawn: no use is left." in text


def test_an_unknown_record_is_an_error(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([note("a")])
    with pytest.raises(UsageError, match="no record"):
        record_page.write(corpus, "b", tmp_path / "x.html")
    with pytest.raises(UsageError, match="is a folder"):
        record_page.write(corpus, "a", tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(record=records)
def test_any_record_has_a_page(record: Record, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = page(tmp_path_factory.mktemp("page"), record)
    assert text.startswith("<!doctype html>")


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no browser at hand: the script of the page is not run")
def test_the_sliders_work_in_a_browser_and_hostile_words_do_not(tmp_path: Path) -> None:
    item = Item("image", np.full((8, 8), 300, np.int16), Origin("s", EVIL, "", ""), unit="HU")
    page(tmp_path, Record("ct", "p", {"modality": EVIL}, {"ct": (item,)}))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [str(CHROMIUM), *flags, (tmp_path / "record.html").as_uri()], capture_output=True, text=True, timeout=60
    )
    assert "<output>400 HU</output>" in done.stdout, done.stdout[-300:]
    assert "<title>ct</title>" in done.stdout
