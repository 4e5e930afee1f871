"""The report: one file, no network, hostile words harmless, every part optional, numbers that are the scores'."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fabrica.corpus import Corpus
from fabrica.errors import UsageError
from fabrica.evaluate import cards, report
from fabrica.evaluate.report import content, figures, gallery
from fabrica.types import Absent, Item, Origin, Record, Region, Score

EVIL = "</q><script>alert(1)</script><img src=x onerror=alert(2)> & 'quoted' \"words\" \ud800"


def record(
    i: int, *, kind: str = "image", text: str = "No effusion.", split: str = "train", fake: bool = False
) -> Record:
    rng = np.random.default_rng(i)
    o = Origin("demo <b>", f"{i}", f"{i:064x}", "CC0-1.0", "synthetic" if fake else "source")
    items: dict[str, tuple[Item, ...]] = {"report": (Item("text", text.encode("utf-8", "replace").decode(), o),)}
    regions: tuple[Region, ...] = ()
    modality = {"image": "xray", "signal": "ecg", "table": "labs", "volume": "ct"}[kind]
    if kind == "image":
        items["image"] = (Item("image", rng.integers(0, 256, (48, 40), dtype=np.uint8), o),)
        mask = np.zeros((48, 40), dtype=bool)
        mask[10:30, 8:20] = True
        regions = (Region("image", "mask", mask, "left_lung", o),)
    elif kind == "volume":
        items["volume"] = (Item("volume", rng.normal(size=(12, 10, 8)).astype(np.float32), o),)
    elif kind == "signal":
        items["ecg"] = (Item("signal", rng.normal(size=(2, 500)), o, rate=100.0, names=("I", "II")),)
    else:
        items["table"] = (Item("table", np.array([1.5, 2.0]), o, names=("sodium", EVIL[:20])),)
    groups = {"modality": modality} | ({"data": "phantom"} if fake else {})
    return Record(f"r{i:03d}", f"p{i:03d}", groups, items, regions, {"effusion": float(i % 2)}, split=split)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    made = Corpus.at(tmp_path_factory.mktemp("report") / "corpus")
    kinds = ("image", "image", "volume", "signal", "table")
    made.append(
        record(
            i,
            kind=kinds[i % 5],
            split="test" if i % 3 == 0 else "train",
            fake=i % 5 > 1,
            text=EVIL if i == 5 else f"Text {i}.",
        )
        for i in range(60)
    )
    made.quarantine(
        [SimpleNamespace(key="a.dcm", sha256="0" * 64, code="array_too_large", message=EVIL[:60])], source="x"
    )
    return made


class Bundle:
    """Embeds by a hash of the record; no model behind it."""

    collate = SimpleNamespace(
        fields={"image": SimpleNamespace(roles=("image",)), "text": SimpleNamespace(roles=("report",))}
    )
    card = {"system": "demo", "title": EVIL, "settings": {"a": 1}}  # noqa: RUF012
    fingerprint = "f" * 24

    def embed(self, records, field, /, **_):
        records = list(records)
        present = np.array([r.first(*self.collate.fields[field].roles) is not None for r in records])
        seeds = [int(hashlib.sha256(f"{r.id}{field}".encode()).hexdigest()[:8], 16) for r in records]
        rows = np.stack([np.random.default_rng(s).standard_normal(8) for s in seeds]).astype(np.float32)
        return [r.id for r in records], rows, present


def score(task, metric, value, arm="model", data="real", **more):
    half = 0.05 if value == value else 0.0
    base = Score(task, metric, value, value - half, value + half, 40, 35, "t-1", "abcdef" * 8, arm=arm, data=data)
    return replace(base, **more)


SCORES = [
    score("findings", "macro AUC", 0.912),
    score("findings", "macro AUC", 0.5, arm="prevalence"),
    score("findings", "macro AUC", 0.777, group="ct"),
    score("findings", "macro AUC difference", 0.412, arm="model minus prevalence"),
    score("findings", "ECE", 0.031),
    score("findings", "macro AUC", float("nan"), data="phantom", note="3 without a known label"),
    *[score(f"probe at {f} % of the labels", "macro AUC", v) for f, v in ((1, 0.61), (10, 0.72), (100, 0.83))],
    *[
        score(f"probe at {f} % of the labels", "macro AUC", v, arm="pixels")
        for f, v in ((1, 0.55), (10, 0.6), (100, 0.7))
    ],
]


class Page(HTMLParser):
    """Tags that stay open, addresses, pictures without words."""

    VOID = frozenset(("meta", "link", "img", "br", "hr", "line", "circle", "polyline"))

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.bad, self.seen, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.seen.append(tag)
        self.links += [values[k] for k in ("src", "href", "srcset", "action", "data") if values.get(k)]
        self.bad += [f"{tag} {k}" for k in values if k.startswith("on")]
        if tag == "img" and not values.get("alt"):
            self.bad.append("img without alt")
        if tag == "svg" and not values.get("aria-label"):
            self.bad.append("svg without label")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.bad.append(f"</{tag}> closes something else")

    def handle_data(self, data):
        self.text += data


@pytest.fixture(autouse=True)
def heat(monkeypatch):
    """A map without a model behind it."""
    from fabrica.models import maps

    monkeypatch.setattr(maps, "heatmap", lambda b, r, t, image="image": np.random.default_rng(0).random((48, 40)))


def test_a_whole_report(tmp_path, corpus):
    log = tmp_path / "train.jsonl"
    lines = [
        {"step": i + 1, "stage": "warm" if i < 20 else "main", "loss": 4 / (i + 1), "seconds": 0.5} for i in range(60)
    ]
    log.write_text("\n".join(json.dumps(x) for x in lines) + '\n{"step": 61, "lo')
    done = SimpleNamespace(dropped={"image_duplicates": {"exact_duplicate": 7}, "nothing": {}}, read=67, kept=60)
    path = report.write(
        tmp_path / "deep" / "report.html", corpus=corpus, raw=corpus, curate=done, train_log=log, scores=SCORES,
        bundle=Bundle(), title=EVIL, cost={"train": {"seconds": 75.2, "peak_mib": 2048}, "odd": {}}, notes=[EVIL],
    )  # fmt: skip
    page = Page(path.read_text("utf-8"))
    assert page.bad == []
    assert page.open == []
    assert "script" not in page.seen
    assert [u for u in page.links if not u.startswith(("data:", "#"))] == []
    said = " ".join(page.text.split())
    for words in (
        "60 records", "24 real and 36 synthetic", "array too large", "exact duplicate", "1 min 15 s", "2.00 GiB",
        "not measured", "0.912 [0.862, 0.962]", "undefined", "No leak", "Text 0.", "7 left out", "outlined: left lung",
        "Laboratory values", "3 without a known label", "10 % of the labels",
    ):  # fmt: skip
        assert words in said, words
    assert path.stat().st_size < 3 << 20


def test_every_part_may_be_missing(tmp_path, corpus):
    path = report.write(tmp_path / "r.html", corpus=corpus)
    said = " ".join(Page(path.read_text("utf-8")).text.split())
    for words in (
        "No score was computed", "No training log was given", "No account of a curation", "No model was given",
        "The cost of the stages was not given", "No file is in quarantine",
    ):  # fmt: skip
        assert words in said, words


def test_an_empty_corpus_is_said(tmp_path):
    path = report.write(tmp_path / "r.html", corpus=Corpus.at(tmp_path / "c"), scores=SCORES, bundle=Bundle())
    assert "The corpus holds no record." in Page(path.read_text("utf-8")).text


def test_no_picture_leaves_when_asked(tmp_path, corpus):
    path = report.write(tmp_path / "r.html", corpus=corpus, bundle=Bundle(), pictures=False)
    page = Page(path.read_text("utf-8"))
    assert not [u for u in page.links if u.startswith("data:image")]
    assert "Text 0." not in page.text


def test_same_input_same_bytes(tmp_path, corpus):
    a, b = (report.write(tmp_path / f"{n}.html", corpus=corpus, scores=SCORES, bundle=Bundle()) for n in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_scores_from_a_folder_bring_what_was_not_scored(tmp_path, corpus):
    with pytest.raises(UsageError, match=r"cards\.json"):
        report.write(tmp_path / "r.html", corpus=corpus, scores=tmp_path)
    cards.write(tmp_path, cards.Cards(tuple(SCORES), (cards.Unscored("probe at 0.1 % of the labels", "too few"),)))
    path = report.write(tmp_path / "r.html", corpus=corpus, scores=tmp_path)
    assert "probe at 0.1 % of the labels: not scored. too few." in Page(path.read_text("utf-8")).text
    assert not list(tmp_path.glob(".*"))  # nothing half-written stays


@pytest.mark.parametrize(
    ("note", "state"),
    [("", "clean"), ("LEAK: 3 of 9 test records", "leak"), ("leaks not checked: unknown", "unchecked")],
)
def test_the_leak_verdict_stands_at_the_top(note, state):
    assert content.verdict([score("t", "AUC", 0.5, note=note)]).state == state
    assert content.verdict([]).state == "none"


def test_real_and_phantom_never_share_a_block():
    cards_ = [f.card for f in content.families(SCORES) if f.card]
    for card in cards_:
        for block in card.blocks:
            held = [*(line.score for line in (*block.lines, *block.groups)), *block.differences, *block.others]
            assert {s.data for s in held} == {block.data}
    shown = [s for c in cards_ for b in c.blocks for s in (*(x.score for x in b.lines), *b.differences, *b.others)]
    assert len(shown) == len(SCORES)  # every score stands on the page once


def test_a_probe_gets_its_chart():
    family = next(f for f in content.families(SCORES) if f.name == "probe")
    ((data, metric, chart),) = family.charts
    assert (data, metric) == ("real", "macro AUC")
    assert chart.count("<circle") == 6
    assert [b.title for b in family.card.blocks] == ["1 % of the labels", "10 % of the labels", "100 % of the labels"]


def test_lines_stand_where_the_numbers_say():
    line = content._line(score("t", "AUC", 0.8), 0.0, 1.0)
    assert (line.left, line.dot, line.width) == (75.0, 80.0, 10.0)


def test_ticks_are_round_and_span():
    for low, high in ((0.0, 1.0), (0.93, 0.961), (-3.2, 712.0), (5.0, 5.0)):
        marks = figures.ticks(low, high)
        assert marks[0] <= low <= high <= marks[-1]
        assert 3 <= len(marks) <= 11


def test_a_picture_survives_its_way_into_the_page():
    ramp = np.tile(np.linspace(0, 1, 64), (32, 1))
    uri = figures.data_uri(ramp, width=64, quality=95)
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))) / 255
    assert back.shape == (32, 64)
    assert np.abs(back - ramp).max() < 0.03


def test_an_overlay_is_bright_where_the_map_is_high_and_outlined_at_the_mask():
    heat = np.zeros((60, 60))
    heat[20:40, 20:40] = 1
    mask = np.zeros((60, 60), dtype=bool)
    mask[10:50, 10:50] = True
    shown = figures.overlay(np.full((60, 60), 0.3), heat, mask)
    assert shown[30, 30].mean() > shown[5, 5].mean() + 0.2
    assert np.allclose(shown[10, 30] * 255, figures.OUTLINE)
    flat = figures.overlay(np.full((8, 8), 0.3), np.ones((8, 8)), None)
    assert np.isfinite(flat).all()


def test_contrast_has_the_sign_of_the_difference():
    heat, mask = np.zeros((4, 4)), np.zeros((4, 4), dtype=bool)
    mask[:2] = True
    heat[:2] = [[1, 2, 1, 2], [1, 2, 1, 2]]
    assert gallery.contrast_to_noise(heat, mask) == pytest.approx(1.5 / 0.5)
    assert gallery.contrast_to_noise(-heat, mask) == pytest.approx(-1.5 / 0.5)
    assert gallery.contrast_to_noise(heat, np.ones_like(mask)) is None


def test_outlines_fit_the_picture_or_are_left_out():
    r = record(0)
    o = r.regions[0].origin
    region, mask = gallery.region_of(r, ("image",))
    assert region.label == "left_lung"
    assert mask.sum() == 20 * 12
    odd = replace(r, regions=(Region("image", "mask", np.ones((5, 5), dtype=bool), "lung", o),))
    assert gallery.region_of(odd, ("image",)) == (None, None)
    box = replace(r, regions=(Region("image", "box", np.array([-4, 2, 900, 6]), "lung", o),))
    assert gallery.region_of(box, ("image",))[1].sum() == 5 * 40


def test_records_that_cannot_be_shown_say_so():
    o = Origin("demo", "x", "", "")
    assert "nothing of this record" in gallery.figure_of(Record("a", "b")).note
    absent = gallery.figure_of(Record("a", "b", items={"image": (Item("image", Absent.UNREADABLE, o),)}))
    assert absent.picture == ""
    empty = gallery.figure_of(Record("a", "b", items={"image": (Item("image", np.zeros((0, 5)), o),)}))
    assert empty.picture == ""
    broken = gallery.figure_of(Record("a", "b", items={"image": (Item("image", np.full((9, 9), np.nan), o),)}))
    assert broken.picture.startswith("data:image/jpeg")


def test_curves_survive_odd_logs(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('nothing\n[1]\n{"step": 1, "loss": "x"}\n{"step": 2}\n')
    assert content.training(path) is None
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 2.0}\n')
    assert "polyline" in content.training(path).curve
    assert content.training(tmp_path / "none") is None
    line = re.search(r'class="line mean" points="([^"]+)"', content.training(path).curve)[1].split()
    assert len(line) == 2


def test_a_long_text_is_cut_at_a_word():
    assert gallery.short("one two  three\nfour", 12) == "one two …"
    assert gallery.short("one", 12) == "one"


def test_a_damaged_card_of_curation_is_named(tmp_path):
    (tmp_path / "curate.json").write_text("{}")
    with pytest.raises(UsageError, match="not what a curation wrote"):
        content.dropped(None, tmp_path)
