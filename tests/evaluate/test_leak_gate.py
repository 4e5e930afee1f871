"""The leak gate: what leaks is found and refused, what is shared by right is not."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fabrica.corpus import Corpus
from fabrica.errors import Leak
from fabrica.evaluate import leak
from fabrica.types import Item, Origin, Record, record_id

ORIGIN = Origin("made", "x", "", "CC0-1.0")
WORDS = np.array([f"word{i}" for i in range(3000)])


def grain(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (80, 80), np.uint8)


def prose(seed: int, words: int = 40) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


def record(i: int, side: str, *, image: np.ndarray | None = None, text: str | None = None) -> Record:
    items = {"image": (Item("image", grain(i) if image is None else image, ORIGIN),)}
    items["report"] = (Item("text", prose(i) if text is None else text, ORIGIN),)
    return Record(record_id(side, str(i)), f"{side}{i}", {"modality": "xray"}, items)


TRAIN = [record(i, "a") for i in range(40)]
TEST = [record(100 + i, "b") for i in range(10)]


def counts(train: Iterable[Record], test: Iterable[Record]) -> dict[str, int]:
    return {kind: n for kind, n in leak.check(train, test).counts.items() if n}


def test_a_clean_split_passes_unmarked() -> None:
    report = leak.check(TRAIN, TEST)
    assert (report.train, report.test, report.leaked, report.mark) == (40, 10, 0, "")
    assert report.gate() == ""


def test_each_kind_is_found_alone() -> None:
    first = TRAIN[3]
    image, text = first.items["image"][0], first.items["report"][0].text()
    assert counts(TRAIN, [*TEST, replace(TEST[0], id="x", subject="a3")]) == {"subject": 1}
    stored = image.array().astype(np.uint16)
    assert counts(TRAIN, [*TEST, record(7000, "b", image=stored)]) == {"pixels": 1}
    brighter = np.clip(image.array() * 0.9 + 10, 0, 255).astype(np.uint8)
    assert counts(TRAIN, [*TEST, record(7000, "b", image=brighter)]) == {"near_pixels": 1}
    assert counts(TRAIN, [*TEST, record(7000, "b", text=text.upper() + ".")]) == {"text": 1}
    edited = " ".join([*text.split()[:-2], "two", "changed"])
    assert counts(TRAIN, [*TEST, record(7000, "b", text=edited)]) == {"text": 1}


def test_volumes() -> None:
    rng = np.random.default_rng(0)
    volumes = rng.normal(size=(5, 30, 30, 30)).astype(np.float32)

    def made(i: int, side: str, value: np.ndarray) -> Record:
        return Record(f"{side}{i}", f"{side}{i}", items={"volume": (Item("volume", value, ORIGIN, affine=np.eye(4)),)})

    train = [made(i, "a", v) for i, v in enumerate(volumes[:4])]
    noisy = (volumes[0] * 1.1 + rng.normal(0, 0.05, (30, 30, 30))).astype(np.float32)
    test = [made(0, "b", volumes[4]), made(1, "b", volumes[1].astype(np.float64)), made(2, "b", noisy)]
    assert counts(train, test) == {"volume": 2}


def test_short_and_machine_texts_are_shared_by_right() -> None:
    normal = "No acute cardiopulmonary abnormality."
    assert counts([record(1, "a", text=normal)], [record(2, "b", text=normal)]) == {}
    caption = Item("text", prose(5), replace(ORIGIN, by="model", steps=("label_captions",)))
    both = [replace(record(i, s), items={"image": record(i, s).items["image"], "caption": (caption,)}) for i, s in
            ((1, "a"), (2, "b"))]  # fmt: skip
    assert counts(both[:1], both[1:]) == {}


def test_texts_of_synthetic_patients_are_shared_by_right_but_not_their_pictures() -> None:
    """Files of the phantom that were written and read back say so in the group "data"."""
    pair = [replace(record(5, side), groups={"data": "phantom"}) for side in "ab"]
    assert counts(pair[:1], pair[1:]) == {"pixels": 1}
    shared = [record(6, side, image=grain(k), text=prose(6)) for k, side in enumerate("ab")]
    assert counts(shared[:1], shared[1:]) == {"text": 1}
    assert counts(shared[:1], [replace(shared[1], groups={"data": "phantom"})]) == {}


def test_a_template_that_other_reports_are_made_of_is_no_leak_but_a_specific_text_is() -> None:
    """Honest reports repeat their templates: a shared text counts only where it says what no other report says."""
    parts = [prose(1000 + i, 10) for i in range(3)]
    template = " ".join(parts)
    others = [record(200, "a", text=" ".join([parts[0], parts[1], prose(301, 30)])),
              record(201, "a", text=" ".join([parts[1], parts[2], prose(302, 30)]))]  # fmt: skip
    shared = record(202, "a", text=template)
    report = leak.check([*TRAIN, *others, shared], [record(300, "b", text=template)])
    assert (report.leaked, report.boilerplate) == (0, 1)
    report = leak.check([*TRAIN, shared], [record(300, "b", text=template)])
    assert (report.counts["text"], report.boilerplate) == (1, 0)
    copies = [record(400 + i, "a", text=prose(9)) for i in range(5)]
    assert counts([*TRAIN, *copies], [record(300, "b", text=prose(9))]) == {"text": 1}


def test_constant_pictures_are_not_compared() -> None:
    blank = np.zeros((80, 80), np.uint8)
    assert counts([record(1, "a", image=blank)], [record(2, "b", image=blank)]) == {}


def test_the_gate_refuses_with_numbers_and_examples_or_marks() -> None:
    test = [*TEST, replace(TRAIN[0], id="copy")]
    report = leak.check(TRAIN, test)
    assert report.leaked == 1
    with pytest.raises(
        Leak, match=r"LEAK: 1 of 11 test records .*subject 1, pixels 1, text 1.*test copy ~ train"
    ) as error:
        report.gate()
    assert "BySubject" in str(error.value)
    assert error.value.exit_code == 5
    mark = report.gate(allow_leak=True)
    assert mark == report.mark == "LEAK: 1 of 11 test records are in training (subject 1, pixels 1, text 1)"
    assert {m.kind for m in report.examples} == {"subject", "pixels", "text"}


def test_examples_are_few_and_counts_are_of_test_records() -> None:
    many = [replace(TRAIN[0], id=f"t{i}") for i in range(50)]
    report = leak.check([*TRAIN, replace(TRAIN[0], id="again")], many)
    assert report.counts["pixels"] == report.leaked == 50
    assert len(report.examples) <= 3 * len(leak.KINDS)


def test_corpora_iterables_and_batches_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    test = [*TEST, *(replace(TRAIN[i], id=f"t{i}", subject=f"z{i}") for i in (0, 39))]
    wanted = leak.check(TRAIN, test)
    train_corpus, test_corpus = Corpus.at(tmp_path / "a"), Corpus.at(tmp_path / "b")
    train_corpus.append(TRAIN)
    test_corpus.append(test)
    assert leak.check(train_corpus, test_corpus) == wanted
    monkeypatch.setattr(leak, "_BATCH", 1)
    assert leak.check(iter(TRAIN), iter(test)).counts == wanted.counts


@pytest.mark.parametrize(("train", "test"), [([], TEST), (TRAIN, []), ([], [])])
def test_empty_sides(train: list[Record], test: list[Record]) -> None:
    report = leak.check(train, test)
    assert (report.train, report.test, report.leaked) == (len(train), len(test), 0)
