"""`fabrica rights | card | diff | inspect` as a person runs them: answers with reasons, pages, and plain refusals."""

from pathlib import Path

import numpy as np
import pytest

from command_line import inside
from fabrica.corpus import Corpus
from fabrica.corpus.card import numbers_of
from fabrica.types import Item, Origin, Record, Rights


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cards")
    corpus = Corpus.at(home / "corpus")
    rights = {"free": Rights("CC0-1.0"), "nc": Rights("CC-BY-NC-4.0"), "unknown": Rights()}
    for name, right in rights.items():
        origin = Origin("clinic", f"{name}.png", "", right.licence)
        items = {"image": (Item("image", np.eye(9, dtype=np.uint8) * 200, origin),),
                 "report": (Item("text", f"No effusion in {name}.", origin),)}  # fmt: skip
        corpus.append([Record(name, f"p-{name}", {"modality": "xray"}, items, rights=right)])
    return home


def test_may_i_train_a_commercial_model(home: Path) -> None:
    ran = inside("rights", "corpus", "--use", "train_commercial", "--each", "--json", cwd=home)
    assert ran.code == 0
    assert (ran.data["yes"], ran.data["no"]) == (1, {"licence_unknown": 1, "non_commercial": 1})
    assert {e["id"]: e["reason"] for e in ran.data["each"]} == {
        "free": "ok", "nc": "non_commercial", "unknown": "licence_unknown",
    }  # fmt: skip
    text = inside("rights", "corpus", "--where", "id = 'nc'", "--each", cwd=home).out
    assert "yes for 0 of 1 records" in text
    assert "the licence excludes commercial use" in text
    assert "free" not in text


def test_withdrawn_subjects_leave_a_new_corpus(home: Path) -> None:
    (home / "list.tsv").write_text("subject\tp-nc\n")
    ran = inside("rights", "corpus", "--remove", "list.tsv", "--into", "corpus-2", "--json", cwd=home)
    assert ran.data["dropped"] == {"remove": {"consent_withdrawn": 1}}
    assert Corpus.open(home / "corpus-2").ids() == ["free", "unknown"]
    changed = inside("diff", "corpus", "corpus-2", "--json", cwd=home).data
    assert (changed["removed"], changed["reasons"], changed["same"]) == (["nc"], {"remove: consent_withdrawn": 1}, 2)
    assert "remove: consent_withdrawn" in inside("diff", "corpus", "corpus-2", cwd=home).out


def test_versions_side_by_side(home: Path) -> None:
    found = inside("diff", "corpus@1", "corpus@3", "--json", cwd=home).data
    assert (found["added"], found["same"]) == (["nc", "unknown"], 1)


def test_a_card_with_its_numbers(home: Path) -> None:
    ran = inside("card", "corpus", "--out", "card.html", "--title", "Ours", "--json", cwd=home)
    page = (home / "card.html").read_text()
    assert numbers_of(page) == ran.data
    assert "<h1>Ours</h1>" in page
    assert "No effusion in free." in page
    assert "No effusion in unknown." not in page
    assert inside("card", "corpus", "--json", cwd=home).data == ran.data


def test_a_record_as_a_page(home: Path) -> None:
    ran = inside("inspect", "corpus", "nc", "--out", "nc.html", "--json", cwd=home)
    assert (ran.data["items"], ran.data["out"]) == ({"image": 1, "report": 1}, "nc.html")
    assert "No effusion in nc." in (home / "nc.html").read_text()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("rights", "nowhere"), ("nothing at nowhere",)),
        (("rights", "corpus", "--use", "train_comercial"), ("did you mean 'train_commercial'",)),
        (("rights", "corpus", "--where", "licnce = 'x'"), ("licnce",)),
        (("rights", "corpus", "--remove", "list.tsv"), ("--into",)),
        (("rights", "corpus", "--remove", "corpus", "--into", "x"), ("corpus",)),
        (("rights", "corpus", "--remove", "list.tsv", "--into", "x", "--reason", "tired"), ("consent_withdrawn",)),
        (("card", "corpus", "--out", "corpus"), ("is a folder",)),
        (("card", "corpus", "--pictures", "al", "--out", "c.html"), ("permitted",)),
        (("card", "corpus", "--said", "nothing.toml"), ("--said",)),
        (("inspect", "corpus", "nobody", "--out", "x.html"), ("nobody",)),
        (("diff", "corpus", "corpus@9"), ("9",)),
        (("diff", "corpus", "elsewhere"), ("no corpus at elsewhere",)),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_said(args: tuple[str, ...], words: tuple[str, ...], home: Path) -> None:
    (home / "list.tsv").write_text("subject\tp-nc\n")
    ran = inside(*args, cwd=home)
    assert ran.code in (2, 3)
    ran.refused(ran.code, *words)
