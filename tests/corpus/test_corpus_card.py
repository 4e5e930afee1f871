"""The datasheet: every number is a recount of the records; nothing in it reaches out; hostile words stay words."""

import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_cases import full, note

from fabrica import curate
from fabrica.corpus import Corpus, card
from fabrica.corpus.numbers import numbers
from fabrica.corpus.pages import grey, line_points, plane, share, turned
from fabrica.curate.quality import MissingText
from fabrica.curate.split import BySubject
from fabrica.errors import UsageError
from fabrica.types import Absent, Item, Origin, Record, Rights

EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\'"<!--'


def made(tmp_path: Path) -> Corpus:
    source = Corpus.at(tmp_path / "raw")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30), np.uint8)
    by_model = Item("text", "No mass.", Origin("made", "m", "", "CC0-1.0", "model"))
    records = [note(f"n{i}", f"Effusion {i}.", labels={"effusion": float(i % 2), "age": 40.5}) for i in range(9)]
    records += [note("empty", ""), full("f", "p9"), note("evil", EVIL, groups={"modality": EVIL}, labels={EVIL: 1.0})]
    records += [Record("m", "p-m", {"modality": "xray"}, {
        "image": (Item("image", pixels, Origin("scans", "a.png", "", "CC-BY-NC-4.0")),), "report": (by_model,),
        "ecg": (Item("signal", Absent.NOT_LINKED, Origin("scans", "a", "", "")),),
    }, labels={"effusion": Absent.NOT_DONE}, rights=Rights("CC-BY-4.0"))]  # fmt: skip
    source.append(records)
    curate.run([MissingText(), BySubject()], source, tmp_path / "c")
    return Corpus.open(tmp_path / "c")


def test_every_number_is_a_recount(tmp_path: Path) -> None:
    """Counted a second time, another way: plain loops over the records, SQL statistics, the ledger's rows."""
    corpus = made(tmp_path)
    card.write(corpus, tmp_path / "card.html")
    said = card.numbers_of((tmp_path / "card.html").read_text())
    assert said == json.loads(json.dumps(numbers(corpus).to_json()))
    records, stats = list(corpus.scan()), corpus.stats()
    present = [i for r in records for of in r.items.values() for i in of if i.present]
    assert said["records"] == len(records) == 12
    assert said["subjects"] == len({r.subject for r in records}) == stats.subjects
    assert (said["bytes"], said["split_hash"], said["version"]) == (stats.bytes, corpus.split_hash(), corpus.version)
    for name in ("modality", "split", "source"):
        assert said[name] == getattr(stats, name), name
    assert said["kinds"] == Counter(i.kind for i in present)
    assert said["by"] == Counter(i.origin.by for i in present) == {"source": 5, "synthetic": 10, "model": 1, "human": 2}
    assert said["texts_by"] == Counter(i.origin.by for i in present if i.kind == "text")
    assert said["absent"] == {"unreadable": 1, "not_done": 1, "not_linked": 1}
    assert said["regions"] == Counter(r.shape for x in records for r in x.regions)
    assert said["links"] == Counter(k.rel for x in records for k in x.links)
    assert said["labels"]["effusion"] == {"0": 5, "1": 5, "not_done": 1}
    assert said["labels"]["age"] == {"other": 10}
    ledger = pq.read_table(tmp_path / "c" / "ledger.parquet").to_pylist()
    assert said["dropped"] == {"missing_text": {"no_text": 1}}
    assert sum(n for d in said["dropped"].values() for n in d.values()) == len(ledger) == said["read"] - said["records"]
    assert said["licence"] == {"CC0-1.0": 10, "CC-BY-4.0": 1, "CC-BY-NC-4.0": 1}
    assert sum(said["subjects_by_split"].values()) == said["subjects"] + said["subjects_in_two_splits"]
    assert said["subjects_in_two_splits"] == 0
    for use, found in said["rights"].items():
        assert found["yes"] + sum(found["no"].values()) == found["records"] == len(records), use


def test_the_page_shows_those_numbers(tmp_path: Path) -> None:
    corpus = made(tmp_path)
    found = card.write(corpus, tmp_path / "card.html", title="My set")
    text = (tmp_path / "card.html").read_text()
    assert "<h1>My set</h1>" in text
    assert f"<strong>{found.records} records</strong> of {found.subjects} subjects" in text
    for use, words in (("train_commercial", "commercial model"), ("redistribute", "passed on")):
        assert re.search(rf"{words}.*?\n?.*?{found.rights[use].yes} <small>of {found.records} records", text), use  # type: ignore[index]
    assert "missing text" in text.lower()


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_nothing_reaches_out_and_hostile_words_stay_words(tmp_path: Path) -> None:
    corpus = made(tmp_path)
    said = {"motivation": {"purpose": EVIL}}
    card.write(corpus, tmp_path / "card.html", title=EVIL, said=said, pictures="in_house")
    text = (tmp_path / "card.html").read_text()
    parser = _Tags()
    parser.feed(text)
    scripts = [a for t, a in parser.tags if t == "script"]
    assert scripts == [{"type": "application/json", "id": "numbers"}]
    assert not any(name.startswith("on") for _, a in parser.tags for name in a)
    for tag, attributes in parser.tags:
        for name in ("src", "href", "action", "data"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, value)
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text
    assert EVIL in card.numbers_of(text)["modality"]


def test_what_the_author_did_not_say_is_said_plainly(tmp_path: Path) -> None:
    corpus = made(tmp_path)
    (tmp_path / "said.toml").write_text(
        '[motivation]\npurpose = """To test.\nTwo lines."""\n[uses]\nnot_for = "Care."\n'
    )
    said = card.read_said(tmp_path / "said.toml")
    card.write(corpus, tmp_path / "card.html", said=said)
    text = (tmp_path / "card.html").read_text()
    asked = sum(map(len, card.QUESTIONS.values()))
    assert text.count("The author has not said:") == asked - 2
    assert "To test.\nTwo lines." in text
    assert "<code>maintenance.contact</code>" in text


@pytest.mark.parametrize(
    ("toml", "word"),
    [("[motivatoin]\nx='1'", "did you mean 'motivation'"), ("[uses]\nintended = 3", "uses.intended is int"),
     ("uses = 'x'", "is not a table"), ("[uses]\nnot_fro='x'", "did you mean 'not_for'"), ("[", "no TOML")],
)  # fmt: skip
def test_answers_that_cannot_be_followed(toml: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "said.toml").write_text(toml)
    with pytest.raises(UsageError, match=re.escape(word)):
        card.read_said(tmp_path / "said.toml")


def test_an_empty_corpus_and_one_that_was_not_curated(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    found = card.write(corpus, tmp_path / "card.html")
    assert (found.records, found.read, found.plan, found.rights["share_ids"].records) == (0, None, (), 0)
    assert "no curation wrote it" in (tmp_path / "card.html").read_text()


def test_pictures_are_shown_by_their_rights(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    rights = {"free": Rights("CC0-1.0"), "inside": Rights("in-house"), "ids": Rights("CC0-1.0", share="ids_only"),
              "gone": Rights("CC0-1.0", consent="withdrawn")}  # fmt: skip
    corpus.append(replace(note(n, f"words of {n}"), rights=r) for n, r in rights.items())
    for choice, seen in (("permitted", {"free"}), ("in_house", {"free", "inside"}), ("none", set())):
        card.write(corpus, tmp_path / "card.html", pictures=choice)  # type: ignore[arg-type]
        text = (tmp_path / "card.html").read_text()
        assert {n for n in rights if f"words of {n}" in text} == seen, choice
    with pytest.raises(UsageError, match="did you mean 'permitted'"):
        card.write(corpus, tmp_path / "card.html", pictures="permited")  # type: ignore[arg-type]


# ---------------------------------------------------------------- drawing


def test_a_spike_survives_thinning() -> None:
    line = np.zeros(100_000)
    line[54_321] = 5.0
    points = line_points(line, width=1000, height=100)
    heights = [float(p.split(",")[1]) for p in points.split()]
    assert min(heights) == 0.0
    assert len(heights) < 3000
    assert line_points(np.array([np.nan, np.nan]), width=1, height=1) == ""


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_a_volume_is_hung_as_radiologists_do(flip: float) -> None:
    """A bright voxel at the patient's right, front: top left of the picture, whatever way the file stores it."""
    volume = np.zeros((5, 6, 3), np.int16)
    at = (4, 5, 1) if flip > 0 else (0, 0, 1)
    volume[at] = 100
    affine = np.diag([flip * 2.0, flip * 2.0, 3.0, 1.0])
    pixels = plane(Item("volume", volume, Origin("s", "k", "", ""), affine=affine))
    assert pixels is not None
    assert pixels.shape == (6, 5)
    assert pixels[0, 0] == 100
    swapped = np.transpose(volume, (2, 0, 1))
    permuted = affine[:, [2, 0, 1, 3]]
    np.testing.assert_array_equal(turned(swapped, permuted), turned(volume, affine))


def test_window_and_shares() -> None:
    hu = np.array([[-1000.0, 40.0, 1000.0]])
    assert grey(hu, (40.0, 400.0)).tolist() == [[0, 127, 255]]
    assert (share(0, 0), share(1, 1000), share(999, 1000), share(1, 2)) == ("0 %", "< 1 %", "> 99 %", "50 %")
