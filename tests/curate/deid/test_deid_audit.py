"""The residual audit: its bars, its intervals, its plants, and that it finds a leak where there is one."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fabrica.curate.deid import audit as room
from fabrica.curate.deid import unseen
from fabrica.curate.deid.audit import CHANNELS, Channel, audit, interval
from fabrica.curate.deid.plants import CITIES, CLINICAL, FAMILY_RARE, GIVEN_RARE, SENTENCES, Planter, note
from fabrica.curate.deid.scene import make_scene
from fabrica.text.identifier_words import FAMILY, GIVEN, vocabulary


def test_the_bars_are_met_in_every_channel() -> None:
    found = audit((0,), patients=3)
    assert [c.name for c in found.channels] == list(CHANNELS)
    assert len(CHANNELS) >= 12
    assert not found.misses
    assert found.met
    assert all(c.planted >= 180 for c in found.channels)
    assert found.false_positives <= 0.01
    assert found.terms >= 40
    burned = next(c for c in found.channels if c.name == "burned_in")
    assert 0 < burned.withheld < burned.planted  # some left out, some cleaned
    assert (found.unseen.name, found.unseen.bar) == ("other_words", room.FREE)
    assert found.unseen.planted >= 150
    assert found.unseen.recall > 0.9
    assert {"family name alone", "town", "ZIP code"} <= set(found.unseen.kinds)


def test_sixty_patients_are_enough_for_an_interval_from_0_999(tmp_path: Path) -> None:
    """What three seeds of 20 patients plant in each channel, by what one scene of four does."""
    assert interval(3688, 3688)[0] >= 0.999 > interval(3680, 3680)[0]
    scene = make_scene(tmp_path / "a", 100, 4)
    planted = Counter(channel for channel, *_ in scene.plants)
    planted["uids"] += len(scene.uids)
    for name in (*CHANNELS, "other_words"):
        assert 15 * planted[name] >= 3688, name


def test_the_other_words_share_nothing_with_the_notes() -> None:
    """Names, towns and wordings are of their own; what is drawn stands in the text."""
    assert not {n.lower() for n in (*GIVEN_RARE, *FAMILY_RARE, *CITIES)} & {
        n.lower() for n in (*unseen.GIVEN, *unseen.FAMILY, *unseen.TOWNS)
    }
    assert not set(SENTENCES) & set(unseen.LETTERS)
    assert len(unseen.LETTERS) == 40
    text, plants, terms = unseen.Stranger(4).letters(6)
    assert all(p.text in text for p in plants)
    assert all(t in text for t in terms)
    assert unseen.Stranger(4).letters(6) == (text, plants, terms)


def test_it_finds_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with free text and pictures left as they are, their channels fall below their bars."""
    from fabrica.curate.deid import cells, dicom_walk, pixels
    from fabrica.text.identifiers import Scrubbed

    monkeypatch.setattr(cells, "scrub", lambda text, **_: Scrubbed(text))
    monkeypatch.setattr(dicom_walk, "scrub", lambda text, **_: Scrubbed(text))
    monkeypatch.setattr(dicom_walk, "protocol_words", lambda text: text)
    monkeypatch.setattr(pixels, "_regions", lambda dataset: [(0, 0, 320, 240)])
    monkeypatch.setattr(pixels, "_found", lambda *_: [])
    found = {c.name: c for c in audit((100,), patients=2).channels}
    for name in ("reports", "sr_text", "table_notes", "burned_in", "dicom_tags", "nifti_json", "signal_headers"):
        assert found[name].recall < found[name].bar, name
    assert found["uids"].recall == 1.0


def test_a_uid_that_changes_between_files_is_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    from fabrica.curate.deid.key import Key

    count = iter(range(10**6))
    monkeypatch.setattr(
        Key, "uid", lambda self, uid: f"2.25.{next(count)}" if not uid.startswith("1.2.840.10008") else uid
    )
    found = {c.name: c for c in audit((100,), patients=2).channels}
    assert found["uids"].recall < 1.0


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(9, 10, 0.5550, 0.9975), (10, 10, 0.6915, 1.0), (0, 10, 0.0, 0.3085), (95, 100, 0.8872, 0.9836)],
)
def test_clopper_pearson(hits: int, n: int, low: float, high: float) -> None:
    """Values of the exact interval as tables give them."""
    assert interval(hits, n) == pytest.approx((low, high), abs=1e-4)
    assert interval(0, 0) == (0.0, 1.0)


def test_a_channel_says_whether_its_bar_is_met() -> None:
    assert Channel("x", 1000, 1, 0, 0.999, 0.99, 1.0, 0.999).met
    assert not Channel("x", 1000, 2, 0, 0.998, 0.99, 1.0, 0.999).met
    assert room.STRUCTURED == 0.999
    assert (room.FREE, room.UIDS, room.CLINICAL) == (0.99, 1.0, 0.01)


def test_plants_share_no_name_with_the_detector() -> None:
    lists = GIVEN | FAMILY | vocabulary()
    for name in (*GIVEN_RARE, *FAMILY_RARE, *CITIES):
        assert name.lower() not in lists, name
    assert len(GIVEN_RARE) > 100
    assert len(FAMILY_RARE) > 90
    assert len(CLINICAL) > 120


def test_scenes_are_the_same_for_a_seed_and_notes_hold_what_they_say(tmp_path: Path) -> None:
    a, b = make_scene(tmp_path / "a", 3, 2), make_scene(tmp_path / "b", 3, 2)
    assert a.plants == b.plants
    for path in sorted(p for p in (tmp_path / "a").rglob("*.txt")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()
    planter = Planter(4)
    text, plants, terms = note(planter, planter.person())
    assert all(p.text in text for p in plants)
    assert all(t in text for t in terms)


@pytest.mark.real_data
def test_real_reports_of_radiographs_are_left_alone(shared_data: Any) -> None:
    """Of reports that were de-identified already (odd ones: the vocabulary was drawn from the others) next to no word
    is touched: under 0.1 % of words."""
    import re
    import tarfile

    from fabrica.text.identifiers import find

    archive = next(shared_data("openi_reports").glob("*.tgz"))
    words = touched = 0
    with tarfile.open(archive) as members:
        names = sorted(m.name for m in members if m.name.endswith(".xml"))
        for name in names[1::2]:
            handle = members.extractfile(name)
            assert handle is not None
            text = "\n".join(re.findall(r"<AbstractText[^>]*>([^<]*)<", handle.read().decode()))
            words += len(text.split())
            touched += sum(len(text[s.start : s.end].split()) for s in find(text))
    assert words > 50_000
    assert touched / words < 0.001
