"""Every field of a record survives the store bit for bit, and bytes that are no record do no harm."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from corpus_cases import full, note, plain, records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabrica.corpus import Corpus, codec
from fabrica.errors import UsageError
from fabrica.types import Absent, Item, Origin, Record

ORIGIN = Origin("made", "k", "", "")


def test_every_field_survives(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    given_ = [full("a"), full("b", "p2", seed=1), note("c")]
    assert corpus.append(given_) == 3
    assert [plain(r) for r in corpus.scan()] == [plain(r) for r in given_]
    assert plain(corpus.take(["b"])[0]) == plain(given_[1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(records, min_size=1, max_size=4, unique_by=lambda r: r.id))
def test_any_record_survives(given_: list[Record]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus.at(Path(folder) / "c")
        corpus.append(given_)
        again = Corpus.open(corpus.path)
        assert [plain(r) for r in again.scan()] == [plain(r) for r in given_]
        assert [r.id for r in again.take(again.ids())] == sorted(r.id for r in given_)


def test_layouts_of_memory_survive(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    struct = np.array([(1, 2.5), (3, 4.5)], dtype=[("n", "<i4"), ("x", "<f8")])
    values = [base.T, base[:, ::2], np.asfortranarray(base), struct, np.array(3.5), np.empty((0, 4)), base[..., ::-1]]
    items = {f"r{i}": (Item("series", v, ORIGIN),) for i, v in enumerate(values)}
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([Record("a", "p", items=items)])
    (back,) = corpus.take(["a"])
    for i, value in enumerate(values):
        found = back.items[f"r{i}"][0].array()
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found, value)
        assert found.size == 0 or found.ctypes.data % 64 == 0, "arrays begin on a boundary that vector code likes"


def test_numbers_of_numpy_become_plain_ones(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([note("a", labels={"x": np.float32(0.5), "y": np.float64(0.1), "z": np.int64(3)})])
    assert dict(corpus.take(["a"])[0].labels) == {"x": 0.5, "y": 0.1, "z": 3}


def test_roles_leave_out_the_rest(tmp_path: Path) -> None:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([full("a")])
    (one,) = corpus.scan(roles=("cxr",))
    assert set(one.items) == {"cxr/frontal"}, "a role takes what lies under it"
    assert [r.label for r in one.regions] == ["mass"]
    assert one.labels["mass"] is Absent.NOT_LINKED
    assert corpus.take(["a"], roles=())[0].items == {}


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (note("a", items={"x": (Item("series", np.array([{}], dtype=object), ORIGIN),)}), "dtype object"),
        (note("a", labels={"x": {1}}), "set"),
        (Record("", "p"), "id"),
        (Record("a", ""), "subject"),
        (Record("a", "p\udc80"), "subject"),
    ],
    ids=["object array", "label", "no id", "no subject", "subject not UTF-8"],
)
def test_what_cannot_be_stored_is_refused_whole(tmp_path: Path, record: Record, match: str) -> None:
    corpus = Corpus.at(tmp_path / "c")
    with pytest.raises(UsageError, match=match):
        corpus.append([note("first"), record])
    assert len(corpus) == 0
    assert not list((tmp_path / "c").rglob("*.bin")), "nothing of the first record may stay either"


def hostile(meta: object) -> memoryview:
    text = json.dumps(meta).encode()
    return memoryview(text + len(text).to_bytes(8, "little"))


GOOD = {
    "format": 1, "id": "a", "subject": "p", "groups": {}, "regions": [], "labels": {}, "links": [],
    "rights": ["", "open", "full", "", ""], "split": None, "origins": [["", "", "", "", "source", []]],
}  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        ["x", "|O", [1], 0], ["x", "<f8", [10**9], 0], ["x", "<f8", [-1], 0], ["x", "<f8", [1], 10**9],
        ["x", "<f8", [1], -64], ["x", "rubbish", [1], 0], ["x", [["a", "|O"]], [1], 0], ["a", "because"], ["b", 1], [],
    ],
)  # fmt: skip
def test_hostile_bytes_are_a_clear_error(value: list[object]) -> None:
    item = ["series", value, 0, None, None, None, None, []]
    with pytest.raises(UsageError):
        codec.decode(hostile({**GOOD, "items": [["r", [item]]]}))


@pytest.mark.parametrize("data", [b"", b"12345678", b"\xff" * 64, b"[]" + (2).to_bytes(8, "little")])
def test_no_record_at_all_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(UsageError, match="damaged"):
        codec.decode(memoryview(data))
