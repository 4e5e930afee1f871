"""Two small worlds of text: what is taught, kept, told and shuffled; which answers pass the rubric."""

import re

import pytest

from fabrica.phantom.consumer import ASKED, RED, Consumer
from fabrica.phantom.textbook import FOUND, TASKS, VERDICTS, Textbook

BOOK = Textbook(30, seed=3)


def said(record, role):
    return record.items[role][0].text()


def test_instructions_and_training_never_name_a_drug_that_is_kept():
    kept = {d.name for d in BOOK.kept}
    asked = BOOK.instructions(120) + BOOK.target(120, kept=False) + BOOK.related(60, 0)
    words = {w for r in asked for role in r.items for w in said(r, role).split()}
    assert not words & kept
    assert kept <= {w for r in BOOK.book() for w in said(r, "answer").split()}
    assert {r.groups["task"] for r in BOOK.instructions(12)} == set(TASKS)


def test_half_of_the_abstracts_tell_and_the_book_decides_the_others():
    by_name = {d.name: d for d in BOOK.known}
    rows = BOOK.target(240, kept=True)
    assert sorted(r.groups["told"] for r in rows) == ["abstract"] * 120 + ["textbook"] * 120
    for told in ("abstract", "textbook"):
        answers = [said(r, "answer") for r in rows if r.groups["told"] == told]
        assert all(answers.count(v) == 40 for v in VERDICTS)
    for r in rows:
        drug = by_name[re.search(r"does (\w+) help", said(r, "prompt"))[1]]
        if r.groups["told"] == "textbook":
            assert drug.verdict == said(r, "answer")
    told = [r for r in rows if r.groups["told"] == "abstract"]
    disagree = sum(by_name[re.search(r"does (\w+)", said(r, "prompt"))[1]].verdict != said(r, "answer") for r in told)
    assert disagree > 40, "an abstract's finding is its own: knowing the book does not answer it"


def test_a_shuffled_book_has_the_same_words_and_other_facts():
    one, two = ([said(r, "answer") for r in BOOK.book(shuffled=s)] for s in (False, True))
    assert len(one) == len(two)
    assert one != two
    asked = [s for s in one if s.startswith("asked if")]
    other = [s for s in two if s.startswith("asked if")]
    same = sum(a == b for a, b in zip(asked, other, strict=True))
    assert same < 0.7 * len(asked)


def test_a_shuffled_book_says_nothing_of_the_drugs_that_are_kept():
    """Each verdict's drugs get all three verdicts, as evenly as their number allows: no luck of the draw."""
    for seed in range(5):
        book = Textbook(90, seed)
        told = dict(re.findall(r"does (\w+) help in \w+ \? they said (\w+) ", " ".join(
            said(r, "answer") for r in book.book(shuffled=True))))  # fmt: skip
        for verdict in ("yes", "no", "maybe"):
            given = [told[d.name] for d in book.kept if d.verdict == verdict]
            counts = [given.count(v) for v in ("yes", "no", "maybe")]
            assert max(counts) - min(counts) <= 2, "the deck goes on from verdict to verdict"


def test_articles_report_findings_of_taught_drugs_that_the_book_does_not_decide():
    rows = [said(r, "answer") for r in BOOK.articles(90)]
    verdicts, kept = {d.name: d.verdict for d in BOOK.known}, {d.name for d in BOOK.kept}
    told = [re.search(r"took (\w+) \. (.+) \. they said (\w+) \.$", s).groups() for s in rows]
    assert not any(name in kept for name, _, _ in told)
    assert all(finding in FOUND[verdict] for _, finding, verdict in told)
    assert 0.2 < sum(verdicts[name] == verdict for name, _, verdict in told) / len(told) < 0.5


def test_related_tasks_differ_in_their_answers_alone():
    first, turned = BOOK.related(50, 0), BOOK.related(50, 1)
    swap = {"yes": "no", "no": "yes", "maybe": "maybe"}
    verdicts = {said(r, "prompt"): said(r, "answer") for r in first}
    shared = [r for r in turned if said(r, "prompt") in verdicts]
    assert len(shared) > 5
    assert all(said(r, "answer") == swap[verdicts[said(r, "prompt")]] for r in shared)
    assert {r.labels["task"] for r in turned} == {1.0}


WORLD = Consumer(8, seed=2)


def test_the_rubric_takes_the_right_answer_and_nothing_else():
    for q in WORLD.questions(ASKED)[:60]:
        good, terse = WORLD.answer(q, "structured"), WORLD.answer(q, "terse")
        assert WORLD.passes(q, good)
        assert WORLD.passes(q, good.replace(" .", ".")), "spaces are no matter of style"
        assert not WORLD.passes(q, terse)
        assert WORLD.knows(q, good)
        assert WORLD.knows(q, terse)
        fact = WORLD.facts[q.condition][q.asked]
        other = next(f[q.asked] for c, f in WORLD.facts.items() if c != q.condition)
        assert not WORLD.passes(q, good.replace(fact, other)), "an invented fact"
        assert not WORLD.knows(q, good.replace(fact, other))
        advice = ("seek care now", "rest at home")
        assert not WORLD.passes(q, good.replace(*(advice if q.complaint in RED else advice[::-1]))), "wrong advice"


def test_one_answer_in_ten_is_structured_and_no_prompt_of_the_experiment_names_a_source():
    rows = WORLD.pretraining(6000)
    share = sum(said(r, "answer").startswith("summary") for r in rows) / len(rows)
    assert share == pytest.approx(0.1, abs=0.02)
    clinic = [said(r, "answer").startswith("summary") for r in rows if said(r, "prompt").startswith("clinic")]
    assert sum(clinic) > 0.85 * len(clinic)
    shown = WORLD.examples(40, ("drug", "organ"))
    assert not any("clinic" in said(r, "prompt") for r in shown)
    left = {WORLD.prompt(q) for a in ("drug", "organ") for q in WORLD.questions((a,))[20:]}
    assert not left & {said(r, "prompt") for r in shown}, "examples and test questions are apart"
    assert all("name the" not in said(r, "prompt") for r in WORLD.examples(8, ("drug",), instruction=False))
