"""No restricted byte in any export: markers planted in every field of withheld records, looked for in every writer."""

import importlib
import pkgutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import fabrica.corpus.views
from fabrica.corpus import Corpus, card
from fabrica.corpus.rights import Use
from fabrica.corpus.views import archive, croissant, hf, parts, webdataset
from fabrica.types import Absent, Item, Link, Origin, Record, Region, Rights

MARK = "SECRETMARKER"
PIXELS = np.frombuffer(b"\x5a\xc3\x99\x17" * 64, np.uint8).reshape(16, 16)
WRITERS: dict[str, Callable[..., Any]] = {
    "webdataset": webdataset.write, "hf": hf.write, "croissant": croissant.write, "archive": archive.write,
    "card": lambda corpus, out, use=None: (out.mkdir(), card.write(corpus, out / "card.html"))[1],
    "card_in_house": lambda corpus, out, use=None: (
        out.mkdir(), card.write(corpus, out / "card.html", pictures="in_house"),
    )[1],
}  # fmt: skip
NOT_OF_A_CORPUS = {"beir"}  # writes a benchmark whose records went through `may`: its own test


def record(name: str, rights: Rights, mark: str) -> Record:
    """A record that carries a mark in everything but its ids and origin."""
    origin = Origin("clinic", f"{name}.txt", "", rights.licence, "source", (f"step {mark}",))
    items = {
        "report": (Item("text", f"text {mark}", origin, hours=7.25, names=(f"names {mark}",)),),
        "caption": (Item("text", f"text {mark}", origin),),
        "image": (Item("image", PIXELS if mark else PIXELS * 0, origin, unit=f"unit {mark}"),),
        "table": (Item("table", np.array([31337.25], np.float32), origin, names=(f"column {mark}",)),),
    }
    region = Region("report", "span", np.array([0, 4]), f"region {mark}", origin, text=f"said {mark}")
    return Record(
        name, f"p-{name}", {"modality": "figure", "site": f"site {mark}"}, items, (region,), {f"label {mark}": 1.0},
        (Link("cites", f"link {mark}"),), rights, "train",
    )  # fmt: skip


FORBIDDEN = {
    "ids": Rights("CC0-1.0", share="ids_only"), "none": Rights("CC0-1.0", share="none"),
    "gone": Rights("CC0-1.0", consent="withdrawn 2024-05-01"),
    "gone_ids": Rights("CC0-1.0", share="ids_only", consent="withdrawn"),
}  # fmt: skip
ONLY_INSIDE = {  # permitted inside the house, not for passing on
    "nc_dua": Rights("data use agreement", "credentialed"), "unknown": Rights(""), "inhouse": Rights("in-house"),
    "changed_nd": Rights("CC-BY-ND-4.0"), "research": Rights("CC0-1.0", consent="v1:research"),
}  # fmt: skip


def corpus_of(tmp_path: Path, marked: dict[str, Rights], free: dict[str, Rights]) -> Corpus:
    corpus = Corpus.at(tmp_path / "c")
    corpus.append([record(n, r, MARK) for n, r in marked.items()] + [record(n, r, "") for n, r in free.items()])
    return corpus


def contents(folder: Path) -> bytes:
    """Every byte of an export, and of what its containers hold."""
    out = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        out.append(path.read_bytes())
        if path.suffix == ".parquet":
            for row in pq.read_table(path).to_pylist():
                out.append(repr(row).encode())
                back = parts.from_row(row) if "meta" in row else Record("none", "")
                out += [i.value.tobytes() for of in back.items.values() for i in of if isinstance(i.value, np.ndarray)]
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                held = {m.name: file.read() for m in tar if (file := tar.extractfile(m)) is not None}
            out += [*held.values(), *(parts.from_png(d).tobytes() for n, d in held.items() if n.endswith(".png"))]
    return b"\n".join(out)


def test_every_writer_is_audited() -> None:
    """A view that is added has to be added here."""
    names = [m.name for m in pkgutil.iter_modules(fabrica.corpus.views.__path__)]
    views = {n: importlib.import_module(f"fabrica.corpus.views.{n}") for n in names if n not in NOT_OF_A_CORPUS}
    writers = {n: view.write for n, view in views.items() if hasattr(view, "write")}
    assert len(writers) >= 4
    assert writers == {n: WRITERS.get(n) for n in writers}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_no_restricted_byte_leaves(name: str, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, FORBIDDEN, {"free": Rights("CC0-1.0")})
    WRITERS[name](corpus, tmp_path / "out")
    held = contents(tmp_path / "out")
    if "card" in name:  # counts are not content: the names of labels stand in its tables
        held = held.replace(f"label {MARK}".encode(), b"")
        assert held.count(b"data:image") == 1, "the free record's picture"
    else:
        assert b"text " in held, "the free record is there"
    assert MARK.encode() not in held
    assert PIXELS.tobytes() not in held
    assert b"31337" not in held


@pytest.mark.parametrize("use", ["redistribute"])
@pytest.mark.parametrize("name", ["webdataset", "hf", "croissant"])
def test_for_passing_on_licences_and_scopes_decide_as_well(name: str, use: Use, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, FORBIDDEN | ONLY_INSIDE, {"free": Rights("CC-BY-4.0")})
    report = WRITERS[name](corpus, tmp_path / "out", use=use)
    assert MARK.encode() not in contents(tmp_path / "out")
    assert (report.records, report.withheld, report.left_out) == (7, 6, 3)
    assert report.reasons == {
        "consent_withdrawn": 2, "share_none": 1, "share_ids_only": 1, "access": 1, "licence_unknown": 1,
        "no_redistribution": 1, "no_derivatives": 1, "consent_scope": 1,
    }  # fmt: skip


def test_for_training_what_may_not_be_learnt_from_is_left_out(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, ONLY_INSIDE, {"free": Rights("CC-BY-4.0"), "nc": Rights("CC-BY-NC-4.0")})
    report = webdataset.write(corpus, tmp_path / "out", use="train_commercial")
    assert [r.id for r in webdataset.read(tmp_path / "out")] == ["free"]
    assert (report.records, report.left_out, sum(report.reasons.values())) == (1, 6, 6)
    research = webdataset.write(corpus, tmp_path / "research", use="train_research")
    assert {r.id for r in webdataset.read(tmp_path / "research")} == {*ONLY_INSIDE, "free", "nc"} - {"unknown"}
    assert research.reasons == {"licence_unknown": 1}


def test_ids_alone(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path, FORBIDDEN | ONLY_INSIDE, {})
    report = webdataset.write(corpus, tmp_path / "out", use="share_ids")
    assert (report.records, report.withheld, report.left_out) == (6, 6, 3)
    assert MARK.encode() not in contents(tmp_path / "out")
    assert all(
        i.value is Absent.WITHHELD for r in webdataset.read(tmp_path / "out") for of in r.items.values() for i in of
    )


def test_croissant_says_what_may_be_done_with_the_whole(tmp_path: Path) -> None:
    import json

    mlc = pytest.importorskip("mlcroissant")
    for name, free, codes in (
        ("open", {"a": Rights("CC0-1.0")}, ["DUO_0000004"]),
        ("nc", {"a": Rights("CC0-1.0"), "b": Rights("CC-BY-NC-4.0")}, ["DUO_0000042", "DUO_0000046"]),
        ("unknown", {"a": Rights("CC0-1.0"), "b": Rights("")}, ["DUO_0000026"]),
    ):
        corpus = corpus_of(tmp_path / name, {}, free)
        croissant.write(corpus, tmp_path / name / "out")
        meta = json.loads((tmp_path / name / "out" / "croissant.json").read_text())
        assert meta["conformsTo"] == "http://mlcommons.org/croissant/1.1"
        assert [t["termCode"] for t in meta["usageInfo"] if "termCode" in t] == codes
        assert f"of {len(free)} records" in meta["usageInfo"][-1]["text"]
        assert meta["prov:wasDerivedFrom"] == [{"@type": "prov:Entity", "prov:label": "clinic"}]
        found = mlc.Dataset(jsonld=str(tmp_path / name / "out" / "croissant.json"))
        assert not found.metadata.ctx.issues.errors
        assert found.metadata.ctx.is_v1_1()
