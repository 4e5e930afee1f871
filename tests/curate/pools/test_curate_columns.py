"""What a survey of millions stands on: groups band by band, rows by column, decisions by column."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.curate.duplicates import hashing, near
from fabrica.curate.duplicates.dedup import TextDuplicates
from fabrica.curate.engine.ledger import Decisions, Notes, Rows, load_decisions, save_decisions
from fabrica.types import Decision, Item, Origin, Record

ORIGIN = Origin("made", "x", "", "CC0-1.0")
WORDS = [f"w{i}" for i in range(400)]


def edited(rng: np.random.Generator, text: str, changes: int) -> str:
    words = text.split()
    for _ in range(changes):
        words[int(rng.integers(len(words)))] = str(rng.choice(WORDS))
    return " ".join(words)


def texts(n: int, seed: int) -> list[str]:
    """Half of them edited copies of earlier ones: on both sides of the threshold, chains among them."""
    rng = np.random.default_rng(seed)
    out = [" ".join(rng.choice(WORDS, 50)) for _ in range(n // 2)]
    while len(out) < n:
        out.append(edited(rng, out[int(rng.integers(len(out)))], int(rng.integers(0, 6))))
    return list(dict.fromkeys(out))


def groups_of(made: list[str], **how: int) -> list[int]:
    keys = near.band_keys(hashing.minhash(*hashing.shingles(made)))
    return near.near_groups(lambda b: keys[:, b], lambda at: [made[i] for i in at.tolist()], len(made), **how).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_what_the_pairs_join(seed: int) -> None:
    made = texts(600, seed)
    joined = near.Groups(len(made))
    for i, j in near.near_texts(made).tolist():
        joined.join(i, j)
    found = groups_of(made)
    assert found == joined.roots().tolist()
    assert 20 < len(made) - len(set(found)) < 300


def test_a_bucket_of_thousands_is_one_group() -> None:
    template = "the heart is not enlarged the lungs are clear there is no effusion and no pneumothorax is seen number"
    assert set(groups_of([f"{template} {i}" for i in range(2000)])) == {0}


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
@settings(deadline=None)
def test_merged_labels_are_union_find(n: int, edges: list[tuple[int, int]]) -> None:
    edges = [(i % n, j % n) for i, j in edges]
    groups, labels = near.Groups(n), np.arange(n)
    for at in range(0, len(edges), 3):
        some = np.array(edges[at : at + 3], np.int64)
        labels = near.merged(labels, some[:, 0], some[:, 1])
    for i, j in edges:
        groups.join(i, j)
    assert labels.tolist() == groups.roots().tolist()


def note(id_: str, text: str) -> Record:
    return Record(id_, f"s{id_}", items={"report": (Item("text", text, ORIGIN),)})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_notes_at_once_are_notes_one_by_one_and_parts_change_nothing(picks: list[int], cut: int) -> None:
    base = texts(12, 5)[:6]
    records = [note(f"r{i:03d}", base[pick]) for i, pick in enumerate(picks)]
    survey = TextDuplicates()
    table = survey.notes(records)
    assert table.to_pylist() == [survey.note(r) for r in records]
    parts = pa.concat_tables([survey.notes(records[lo : lo + cut]) for lo in range(0, len(records), cut)])
    wanted = survey.decide([survey.note(r) for r in records])
    assert dict(survey.decide(Rows(parts))) == dict(wanted)
    seen: dict[int, str] = {}
    exact = {r.id for r, pick in zip(records, picks, strict=True) if seen.setdefault(pick, r.id) != r.id}
    assert exact <= set(wanted), "of equal texts the lowest id stays, or none"


def test_no_rows_and_no_texts() -> None:
    assert dict(TextDuplicates().decide([])) == {}
    few = [note("a", "too short"), note("b", "too short")]
    assert dict(TextDuplicates().decide([TextDuplicates().note(r) for r in few])) == {}


@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 9)), max_size=30, unique_by=lambda r: r[0]), st.data())
def test_rows_of_many_parts_by_id_and_by_column(rows: list[tuple[str, int]], data: st.DataObject) -> None:
    table = pa.table(
        {"id": pa.array([r[0] for r in rows], pa.string()), "n": pa.array([r[1] for r in rows], pa.int64())}
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    parts = [table.slice(lo, hi - lo) for lo, hi in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    found, wanted = Rows(pa.concat_tables(parts)), sorted(rows, key=lambda r: r[0].encode())
    assert [(row["id"], row["n"]) for row in found] == wanted
    assert found.column("n").to_pylist() == [n for _, n in wanted]
    if rows:
        at = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9))
        assert found.gather("n", np.array(at, np.int64)).to_pylist() == [wanted[i][1] for i in at]
        assert found[-1] == {"id": wanted[-1][0], "n": wanted[-1][1]}
    with pytest.raises(IndexError):
        found[len(rows)]


def test_decisions_by_column_are_a_mapping_and_come_back_from_disk(tmp_path: Path) -> None:
    made = {
        "b": Decision(drop="copy"), "a": Decision(groups={"near_text": "x"}), "c": Decision(split="test"),
        "d": Decision(),
    }  # fmt: skip
    decisions = Decisions.wrap(made)
    assert Decisions.wrap(decisions) is decisions
    save_decisions(tmp_path / "d.arrow", decisions)
    again = load_decisions(tmp_path / "d.arrow")
    assert dict(again) == made
    assert list(again) == ["a", "b", "c", "d"]
    aligned = again.aligned(pa.array(["c", "x", "b"]))
    assert aligned.to_pylist() == [
        {"drop": None, "groups": None, "split": "test"}, {"drop": None, "groups": None, "split": None},
        {"drop": "copy", "groups": None, "split": None},
    ]  # fmt: skip
    worse = again.and_drop(pa.array(["c", "z"]), pa.array(["raised_X", "raised_X"]))
    assert (worse["c"], worse["z"], worse["b"]) == (Decision(drop="raised_X"), Decision(drop="raised_X"), made["b"])


def test_parts_reach_to_the_first_gap(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "n")
    for start, end in ((0, 5), (5, 8), (9, 12), (12, 14)):
        notes.write(start, end, [{"id": str(start)}])
    assert notes.end() == 8
    notes.cut(8, frozenset({(12, 14)}))
    assert [(start, end) for start, end, _ in notes.parts()] == [(0, 5), (5, 8), (12, 14)]
