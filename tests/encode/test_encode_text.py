"""Text: sentences, vocabularies, truncation."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode import Encode, from_json
from fabrica.encode.text import TextEncode, sentences
from fabrica.encode.vocabulary import load_tokenizer, train_vocabulary
from fabrica.errors import Refused, UsageError
from fabrica.types import Item, Origin

SOURCE = Origin("synthetic", "note", "", "CC0-1.0")
RNG = np.random.default_rng(0)
SAID = "pleural effusion in the left lower zone no nodule seen heart size normal pneumopericardium"
WORDS = SAID.split()
TEXTS = [" ".join(np.random.default_rng(i).permutation(WORDS)) for i in range(30)]
TOKENIZER = train_vocabulary(TEXTS, 200)


def text(value):
    return Item("text", value, SOURCE)


def test_sentences_of_reports():
    assert sentences("ring in the left upper zone . no disc") == ["ring in the left upper zone .", "no disc"]
    assert sentences("1.5 cm nodule, seen by Dr. Wu. Stable; no change.\n\n* Heart normal\n2.") == [
        "1.5 cm nodule, seen by Dr. Wu.", "Stable;", "no change.", "Heart normal",
    ]  # fmt: skip
    assert sentences("") == sentences("...\n--- 12") == []


def test_a_wordpiece_vocabulary_speaks_the_domain():
    generic = train_vocabulary(["the cat sat on the mat and the dog ran"] * 30, 200)
    assert TOKENIZER.encode("pneumopericardium").tokens == ["[CLS]", "pneumopericardium", "[SEP]"]
    assert len(generic.encode("pneumopericardium").tokens) > 3 or "[UNK]" in generic.encode("pneumopericardium").tokens
    assert TOKENIZER.token_to_id("[PAD]") == 0
    assert TOKENIZER.get_vocab_size() <= 200
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(TOKENIZER.get_vocab_size()))


def test_byte_pairs_lose_nothing():
    tokenizer = train_vocabulary(TEXTS, 400, kind="bpe", lower=False)
    said = "Größe 5 µm, naïve ☃ never seen"
    assert tokenizer.decode(tokenizer.encode(said).ids) == said


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_vocabulary_is_a_function_of_its_texts(kind):
    code = (
        "from fabrica.encode.vocabulary import train_vocabulary as t;"
        f"import hashlib;x={TEXTS!r};print(hashlib.sha256(t(x,150,kind={kind!r}).to_str().encode()).hexdigest())"
    )
    made = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(4)}
    assert len(made) == 1
    assert len(made.pop()) == 65


def test_one_sentence_is_drawn_anew_a_visit():
    encode = TextEncode(TOKENIZER, 32, view="one_sentence")
    report = text("Pleural effusion. No nodule. Heart normal. Left lower zone. Size seen.")
    read = [encode.read(report, np.random.default_rng(s)) for s in range(300)]
    counts = [read.count(s) for s in sentences(report.text())]
    assert min(counts) > 35  # uniform: 60 each
    assert sum(counts) == 300
    assert encode.still().read(report, RNG) == report.text()


def test_one_of_a_bank_is_drawn_and_still_takes_the_first():
    bank = [text(t) for t in ("left effusion", "no nodule", "heart normal")]
    encode = TextEncode(TOKENIZER, 8, view="one_of")
    drawn = {encode.choose(bank, 1, np.random.default_rng(s))[0].text() for s in range(50)}
    assert drawn == {"left effusion", "no nodule", "heart normal"}
    assert encode.still().choose(bank, 1, RNG) == bank[:1]


def test_truncation_keeps_special_tokens_and_says_what_it_lost():
    long = " ".join(WORDS)
    tail = TextEncode(TOKENIZER, 7)
    both = TextEncode(TOKENIZER, 7, truncation="head+tail")
    whole = TOKENIZER.encode(long).ids
    assert tail.ids(long).tolist() == [2, *whole[1:6], 3]
    assert both.ids(long).tolist() == [2, *whole[1:4], *whole[-3:-1], 3]
    assert tail.kept(long) == "pleural effusion in the left"
    assert both.kept(long) == "pleural effusion in … normal pneumopericardium"
    assert tail.kept("no nodule") == "no nodule"
    cut = tail.survey([long, "no nodule", long, "heart"])
    assert (cut.texts, cut.truncated, cut.fraction, cut.longest) == (4, 2, 0.5, 16)  # 14 words and two special tokens
    assert cut.kept == pytest.approx(7 / 16)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=200), st.integers(3, 20), st.sampled_from(["tail", "head+tail"]))
def test_any_text_fits_and_stays_in_the_vocabulary(said, length, truncation):
    encode = TextEncode(TOKENIZER, length, truncation=truncation)
    ids = encode.ids(said)
    assert 2 <= len(ids) <= length
    assert ids[0] == 2
    assert ids[-1] == 3
    assert ids.max() < encode.size


def test_empty_texts_and_bad_settings():
    with pytest.raises(Refused, match="'note' is empty"):
        TextEncode(TOKENIZER, 8)(text("  \n"), RNG)
    with pytest.raises(Refused, match="text_empty"):
        TextEncode(TOKENIZER, 8, view="one_sentence")(text("12. 34."), RNG)
    for make in (
        lambda: TextEncode(TOKENIZER, 2),
        lambda: TextEncode(TOKENIZER, 8, view="all"),
        lambda: TextEncode(TOKENIZER, 8, truncation="middle"),
        lambda: train_vocabulary([" "], 100),
        lambda: train_vocabulary(TEXTS, 3),
        lambda: train_vocabulary(TEXTS, 99, kind="unigram"),
    ):
        with pytest.raises(UsageError):
            make()


def test_round_trips_by_json_by_pickle_and_from_a_folder(tmp_path):
    encode = TextEncode(TOKENIZER, 16, view="one_of", truncation="head+tail")
    assert isinstance(encode, Encode)
    for again in (from_json(json.loads(json.dumps(encode.to_json()))), pickle.loads(pickle.dumps(encode))):
        assert again == encode
        assert again.ids(TEXTS[0]).tolist() == encode.ids(TEXTS[0]).tolist()
    TOKENIZER.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).to_str() == TOKENIZER.to_str()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path / "empty")
