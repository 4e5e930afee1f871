"""The licence lattice against the licences' own words; joins as an algebra; consent; take-down."""

import json
from itertools import product
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.corpus.rights import REASONS, USES, audit, join, licence_of, may
from fabrica.corpus.terms import NAMED, Terms, alternatives, canonical, strictest, terms_of
from fabrica.curate.rights import OnlyPermitted, Remove, withdrawn
from fabrica.errors import UsageError
from fabrica.sources.single import hashed
from fabrica.types import Absent, Item, Link, Origin, Record, Rights

CC = [f"CC-BY{p}-4.0" for p in ("", "-NC", "-SA", "-ND", "-NC-SA", "-NC-ND")]
SOME = [*CC, "CC0-1.0", "MIT", "ODbL-1.0", "CC-BY-SA-3.0", "in-house", "other", "", "MIT OR CC-BY-NC-4.0"]


def record(licence: str = "CC0-1.0", *, item: str = "", by: str = "source", name: str = "r", **more: object) -> Record:
    origin = Origin("s", f"{name}.txt", "", item, by)  # type: ignore[arg-type]
    rights = more.pop("rights", Rights(licence))
    return Record(name, f"p-{name}", items={"report": (Item("text", "words", origin),)}, rights=rights, **more)  # type: ignore[arg-type]


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("licence", "commercial", "derivatives", "alike"),
    [  # https://creativecommons.org/share-your-work/cclicenses/
        ("CC-BY-4.0", True, True, False), ("CC-BY-SA-4.0", True, True, True), ("CC-BY-NC-4.0", False, True, False),
        ("CC-BY-NC-SA-4.0", False, True, True), ("CC-BY-ND-4.0", True, False, False),
        ("CC-BY-NC-ND-4.0", False, False, False), ("CC0-1.0", True, True, False), ("CC-BY", True, True, False),
    ],
)  # fmt: skip
def test_creative_commons_as_their_deeds_say(licence: str, commercial: bool, derivatives: bool, alike: bool) -> None:
    found = terms_of(licence)
    assert (found.commercial, found.derivatives, found.share_alike) == (commercial, derivatives, alike)
    assert found.redistribution
    assert found.attribution == (licence != "CC0-1.0")


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("CC BY 4.0", "CC-BY-4.0"), ("cc-by-nc-nd", "CC-BY-NC-ND"), ("CC BY NC SA 3.0", "CC-BY-NC-SA-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"), ("Apache-2.0", "Apache-2.0"),
        ("http://creativecommons.org/licenses/by-nc/4.0/legalcode", "CC-BY-NC-4.0"), ("mit", "MIT"), ("", ""),
        ("CC-BY-ND-NC-2.0", "CC-BY-NC-ND-2.0"), ("Some  other terms", "Some other terms"),
    ],
)  # fmt: skip
def test_names_are_read_as_written(said: str, name: str) -> None:
    assert canonical(said) == name


def test_every_licence_of_the_catalogue_is_in_the_table_or_says_that_it_is_not_one() -> None:
    from fabrica import catalogue
    from fabrica.catalogue.entries.xray_tables import TERMS

    said = {catalogue.get(n).licence for n in catalogue.names() if catalogue.get(n).kind == "data"} | set(
        TERMS.values()
    )
    none = {"each set's own terms", "each package's own"}
    for licence in said - none:
        assert all(terms_of(leaf).known for one in alternatives(licence) for leaf in one), licence
    assert not any(terms_of(licence).known for licence in none)


def test_or_is_a_choice_and_and_is_not() -> None:
    assert may(record("GPL-3.0-only OR MIT"), "redistribute").allowed
    assert may(record("CC-BY-NC-4.0 OR MIT"), "train_commercial").allowed
    assert not may(record("CC-BY-NC-4.0 AND MIT"), "train_commercial").allowed
    assert not may(record("(CC-BY-NC-4.0 OR MIT) AND CC-BY-ND-4.0"), "train_commercial").allowed
    assert may(record("GPL-2.0-only WITH Classpath-exception-2.0"), "redistribute").allowed


@given(st.text(max_size=60))
def test_any_text_is_a_licence_name_without_rights(said: str) -> None:
    expression = f"x{said}"
    assert isinstance(strictest([expression]), str)
    assert may(record(expression), "redistribute").allowed <= terms_of(canonical(expression)).known or " OR " in said


@given(st.sampled_from(sorted(NAMED)), st.sampled_from(sorted(NAMED)), st.sampled_from(sorted(NAMED)))
def test_terms_are_a_lattice(a: str, b: str, c: str) -> None:
    x, y, z = NAMED[a], NAMED[b], NAMED[c]
    assert x & y == y & x
    assert (x & y) & z == x & (y & z)
    assert x & x == x
    assert (x & y) <= x
    assert Terms() & x <= x


# ---------------------------------------------------------------- join

any_rights = st.builds(
    Rights, st.sampled_from(SOME), st.sampled_from(["open", "credentialed", "restricted"]),
    st.sampled_from(["full", "ids_only", "none"]),
    st.sampled_from(["", "v1", "v2:research", "v2:research,share", "withdrawn"]),
    st.sampled_from(["", "A", "B", "A; C"]),
)  # fmt: skip


@given(st.lists(any_rights, min_size=1, max_size=4), st.randoms())
def test_joined_rights_are_an_algebra(parts: list[Rights], random: object) -> None:
    whole = join(*parts)
    shuffled = list(parts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert join(*shuffled) == whole
    assert join(*parts, *parts) == whole
    assert join(whole, *parts) == whole
    assert join(join(*parts[:2]), *parts[2:]) == whole
    for use, one in product(USES, parts):
        mine = may(record(rights=whole), use)
        if mine.allowed:
            assert may(record(rights=one), use).allowed, "what is made of several permits nothing that one forbids"


def test_the_strictest_and_what_cannot_be_compared() -> None:
    assert join(Rights("CC0-1.0"), Rights("CC-BY-4.0")).licence == "CC-BY-4.0"
    assert join(Rights("CC-BY-SA-4.0"), Rights("CC-BY-NC-4.0")).licence == "CC-BY-NC-4.0 AND CC-BY-SA-4.0"
    assert join(Rights("CC-BY-4.0"), Rights("")).licence == ""
    assert join(Rights("CC-BY-4.0"), Rights("my terms")).licence == "my terms"
    assert join() == Rights()
    got = join(Rights("MIT", consent="v2:research,share"), Rights("MIT", "credentialed", consent="v1:share"))
    assert (got.access, got.consent) == ("credentialed", "v1+v2:share")


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("rights", "use", "reason"),
    [
        (Rights("CC0-1.0"), "train_commercial", "ok"), (Rights("CC-BY-NC-4.0"), "train_commercial", "non_commercial"),
        (Rights("CC-BY-NC-4.0"), "train_research", "ok"), (Rights("CC-BY-ND-4.0"), "train_research", "ok"),
        (Rights("CC-BY-ND-4.0"), "train_commercial", "no_derivatives"), (Rights("CC-BY-ND-4.0"), "redistribute", "ok"),
        (Rights(""), "train_research", "licence_unknown"), (Rights("other"), "train_research", "licence_not_listed"),
        (Rights("all rights reserved"), "train_research", "no_training"), (Rights("in-house"), "train_research", "ok"),
        (Rights("in-house"), "redistribute", "no_redistribution"), (Rights(""), "share_ids", "ok"),
        (Rights("CC0-1.0", share="ids_only"), "redistribute", "share_ids_only"),
        (Rights("CC0-1.0", share="ids_only"), "train_commercial", "ok"),
        (Rights("CC0-1.0", share="none"), "share_ids", "share_none"),
        (Rights("CC0-1.0", share="none"), "redistribute", "share_none"),
        (Rights("CC0-1.0", "credentialed"), "redistribute", "access"),
        (Rights("CC0-1.0", consent="withdrawn 2024-05-01"), "train_research", "consent_withdrawn"),
        (Rights("CC0-1.0", consent="withdrawn"), "share_ids", "consent_withdrawn"),
        (Rights("CC0-1.0", consent="v2:research"), "train_commercial", "consent_scope"),
        (Rights("CC0-1.0", consent="v2:research"), "train_research", "ok"),
        (Rights("CC0-1.0", consent="v2:"), "train_research", "consent_scope"),
        (Rights("CC-BY-NC-SA-4.0 AND CC-BY-SA-4.0"), "redistribute", "share_alike_conflict"),
        (Rights("CC-BY-SA-3.0 AND CC-BY-SA-4.0"), "redistribute", "ok"),
        (Rights("CC-BY-NC-4.0 AND ODbL-1.0"), "redistribute", "share_alike_conflict"),
        (Rights("PhysioNet Credentialed Health Data License 1.5.0"), "train_research", "ok"),
        (Rights("PhysioNet Credentialed Health Data License 1.5.0"), "redistribute", "no_redistribution"),
    ],
)  # fmt: skip
def test_each_answer_has_its_reason(rights: Rights, use: str, reason: str) -> None:
    answer = may(record(rights=rights), use)  # type: ignore[arg-type]
    assert (answer.reason, answer.allowed) == (reason, reason == "ok")
    assert answer.why == REASONS[reason]


def test_no_derivatives_holds_for_what_was_changed() -> None:
    nd = Rights("CC-BY-ND-4.0")
    assert may(record(rights=nd), "redistribute").allowed
    assert may(record(rights=nd, by="model"), "redistribute").reason == "no_derivatives"
    assert may(record(rights=nd, links=(Link("derived_from", "x"),)), "redistribute").reason == "no_derivatives"
    cut = record(rights=nd)
    (item,) = cut.items["report"]
    changed = cut.updated(items={"report": (Item("text", "w", item.origin.then("cut")),)})
    assert may(changed, "redistribute").reason == "no_derivatives"
    decoded = cut.updated(items={"report": (Item("text", "w", item.origin.then("exif_upright")),)})
    assert may(decoded, "redistribute").allowed, "decoding a file is no change"


def test_the_strictest_item_decides() -> None:
    assert licence_of(record("CC0-1.0", item="CC-BY-NC-4.0")) == "CC-BY-NC-4.0"
    assert licence_of(record("", item="CC0-1.0")) == "CC0-1.0"
    assert licence_of(record("CC0-1.0", item="")) == "CC0-1.0", "an item without its own has the record's"
    mixed = Record("r", "p", items={"a": (Item("text", "x", Origin("s", "1", "", "CC0-1.0")),),
                                    "b": (Item("text", "y", Origin("s", "2", "", "")),)})  # fmt: skip
    assert licence_of(mixed) == "", "one without any is unknown"


def test_an_unknown_use_is_an_error() -> None:
    with pytest.raises(UsageError, match="did you mean 'redistribute'"):
        may(record(), "redistribut")  # type: ignore[arg-type]


def test_an_audit_counts_what_the_answers_say() -> None:
    some = [record("CC0-1.0"), record("CC-BY-NC-4.0"), record("CC-BY-NC-4.0"), record("")]
    found = audit((may(r, "train_commercial") for r in some), "train_commercial")
    assert (found.records, found.yes, found.no) == (4, 1, {"licence_unknown": 1, "non_commercial": 2})
    assert found.by_licence["CC-BY-NC-4.0"] == {"non_commercial": 2}
    assert audit([], "share_ids").records == 0


# ---------------------------------------------------------------- withdrawal and take-down


def _corpus(tmp_path: Path) -> Corpus:
    corpus = Corpus.at(tmp_path / "c")
    patient = hashed("subject", "clinic", "MRN 7")
    sha = Item("text", "w", Origin("s", "https://a.example/x.png#1", "ab" * 32, "CC0-1.0"))
    corpus.append([
        record(name="keep"), record(name="a").updated(subject=patient), record(name="b"),
        record(name="caption", links=(Link("derived_from", "a"),)),
        record(name="deep", links=(Link("part_of", "caption"),)),
        record(name="cites", links=(Link("cites", "a"),)), Record("web", "w", items={"image": (sha,)}),
        Record("lazy", "l", items={"image": (Item("image", Absent.NOT_DONE, Origin("s", "doi:1", "", "")),)}),
    ])  # fmt: skip
    return corpus


def test_withdrawal_makes_a_new_version_with_a_ledger_and_takes_what_derives(tmp_path: Path) -> None:
    source = _corpus(tmp_path)
    (tmp_path / "list.tsv").write_text("# asked on 2 May\npatient\tclinic\tMRN 7\nsubject\tp-b\n\n")
    step = Remove.from_file(tmp_path / "list.tsv", reason="consent_withdrawn")
    report = curate.run([step], source, tmp_path / "out")
    made = Corpus.open(tmp_path / "out")
    assert made.ids() == ["cites", "keep", "lazy", "web"]
    assert report.dropped == {"remove": {"consent_withdrawn": 2, "made_of_consent_withdrawn": 2}}
    rows = {r["id"]: r["reason"] for r in pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()}
    assert rows == {
        "a": "consent_withdrawn", "b": "consent_withdrawn", "caption": "made_of_consent_withdrawn",
        "deep": "made_of_consent_withdrawn",
    }  # fmt: skip
    card = (tmp_path / "out" / "curate.json").read_text()
    assert "MRN" not in card
    assert "p-b" not in card
    assert json.loads(card)["plan"][0]["params"]["entries"] == 2
    assert len(source) == 8, "the old version is untouched"


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("key\thttps://a.example/x.png", "web"),
        ("sha256\t" + "ab" * 32, "web"),
        ("key\tdoi:1", "lazy"),
        ("id\tkeep", "keep"),
    ],
)
def test_take_down_finds_by_origin_hash_and_id(line: str, gone: str, tmp_path: Path) -> None:
    report = curate.run([Remove([line], reason="taken_down")], _corpus(tmp_path), tmp_path / "out")
    assert report.dropped["remove"] == {"taken_down": 1}
    assert gone not in Corpus.open(tmp_path / "out").ids()


@pytest.mark.parametrize("line", ["MRN 7", "patient\tMRN 7", "subjekt\tx", "id\t "])
def test_a_list_that_cannot_be_followed_is_an_error_without_its_content(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Remove(["# fine", line], reason="taken_down")
    assert "line 2" in str(caught.value)
    assert "MRN" not in str(caught.value)


def test_only_permitted_and_marked_withdrawal() -> None:
    dropped = []
    some = [record("CC0-1.0", name="a"), record("CC-BY-NC-4.0", name="b"), withdrawn(record("CC0-1.0", name="c"))]
    kept = list(OnlyPermitted(use="train_commercial")(some, lambda r, why: dropped.append((r.id, why))))
    assert [r.id for r in kept] == ["a"]
    assert dropped == [("b", "non_commercial"), ("c", "consent_withdrawn")]
