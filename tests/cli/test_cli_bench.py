"""`fabrica bench`: a file of questions asked of a recorded model, judged beside the best constant letter."""

import json
from pathlib import Path

import pytest

from command_line import inside
from fabrica.chat import Recorded, Scripted
from fabrica.chat.strategies import chain_of_thought, direct
from fabrica.errors import UsageError
from fabrica.evaluate import bench
from fabrica.evaluate.choices import always, answered

LETTERS = "ABCD"


def rows(n: int) -> list[dict[str, object]]:
    """Questions whose right letter is B in half of the cases, else A, C, D in turn."""
    gold = ["B" if i % 2 else "ACD"[i // 2 % 3] for i in range(n)]
    return [
        {"question": f"What is thing number {i}?", "options": {a: f"thing {i} {a.lower()}" for a in LETTERS},
         "answer_idx": g, "subject": "things"}
        for i, g in enumerate(gold)
    ]  # fmt: skip


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """Forty questions, one line that is none, one question twice, one without an answer."""
    lines = [*rows(40), {"question": "What?"}, rows(1)[0], rows(41)[40] | {"answer_idx": None}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "q.jsonl"


def recorded(asked: Path, right: float, strategy=direct) -> Path:
    """Replies of a model that is right on a share of the questions (by their order in the bench), else says A."""
    found = bench.load(asked)
    golds = {q.text: q.gold for q in found.questions[: round(right * len(found.questions))]}

    def say(request):
        text = request.messages[-1].text
        return f"Answer: ({next((g for t, g in golds.items() if t in text), 'A')})"

    answered(Recorded(asked.parent / "r.jsonl", Scripted(say)), found.questions, strategy)
    return asked.parent / "r.jsonl"


def test_what_cannot_be_judged_is_left_out_by_reason(asked: Path) -> None:
    found = bench.load(asked)
    assert len(found.questions) == len(set(found.subjects)) == 40
    assert dict(found.left) == {"options_few": 1, "twice": 1, "no_answer": 1}
    assert [q.id for q in found.questions] == sorted(q.id for q in found.questions)


def test_a_good_model_is_better_than_the_constant_and_a_constant_is_not(asked: Path) -> None:
    found = bench.load(asked)
    flat = bench.judged(found, always(found.questions, "B"))
    assert (flat.constant, flat.trivial, flat.summary.accuracy) == ("B", 0.5, 0.5)
    assert (flat.gain.value, flat.p, flat.better) == (0.0, 1.0, False)
    assert flat.verdict == "not shown better than always B (0.500)"
    worse = bench.judged(found, always(found.questions, "A"))
    assert worse.gain.high < 0
    assert worse.verdict.startswith("worse than")


def test_the_command_prints_and_keeps_what_it_judged(asked: Path, tmp_path: Path) -> None:
    replies = recorded(asked, 0.9)
    args = ["bench", asked, "--model", f"recorded:{replies}", "--strategy", "direct"]
    made = inside(*args, "--out", "bench", "--json", cwd=tmp_path).data
    assert made["n"] == 40
    assert made["summary"]["accuracy"] >= 0.9
    assert made["gain"]["low"] > 0
    assert made["verdict"] == "better than always B (0.500)"
    assert made["accuracy"]["low"] < made["summary"]["accuracy"] < made["accuracy"]["high"]
    kept = [json.loads(line) for line in (tmp_path / "bench" / "rows.jsonl").read_text().splitlines()]
    assert sum(r["truth"] == r["answer"] for r in kept) == round(40 * made["summary"]["accuracy"])
    assert kept[0]["prompts"][0].startswith("choose@")
    assert json.loads((tmp_path / "bench" / "card.json").read_text()) == made
    text = inside(*args, "--limit", "10", cwd=tmp_path).out
    assert "always" in text
    assert "n\n" in text
    assert "left out: 1 options_few, 1 twice, 1 no_answer" in text
    assert "leak: not checked" in text


def test_a_run_goes_on_from_the_replies_that_it_kept(asked: Path, tmp_path: Path) -> None:
    replies = recorded(asked, 0.5)
    args = ["bench", asked, "--model", f"recorded:{replies}", "--strategy", "direct", "--out", "bench", "--json"]
    first = inside(*args, cwd=tmp_path).data
    head = replies.read_text().splitlines(keepends=True)[0]
    replies.write_text(head)  # the model has gone; its replies are kept
    assert inside(*args, cwd=tmp_path).data == first


def test_a_dry_run_answers_two_questions_and_says_what_all_cost(asked: Path, tmp_path: Path) -> None:
    replies = recorded(asked, 0.5, chain_of_thought)
    args = ["bench", asked, "--model", f"recorded:{replies}", "--strategy", "chain_of_thought", "--out", "bench"]
    made = inside(*args, "--dry-run", "--json", cwd=tmp_path).data
    assert (made["questions"], made["calls"]) == (40, 40)
    assert made["minutes"] < 1
    assert not (tmp_path / "bench").exists()


def test_wrong_use_says_what_to_do(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": "no question"}\n')
    inside("bench", tmp_path / "empty.jsonl", cwd=tmp_path).refused(2, "no question with a known answer", "no_question")
    inside("bench", tmp_path / "gone.jsonl", cwd=tmp_path).refused(2, "nothing at")
    inside("bench", asked, "--strategy", "self_consistancy", cwd=tmp_path).refused(2, "did you mean 'self_consistency'")
    inside("bench", asked, "--strategy", "convirt", cwd=tmp_path).refused(2, "answers no questions")
    inside("bench", asked, "--by", "word", cwd=tmp_path).refused(2, "letter")
    inside("bench", asked, "--model", "http://localhost:1/v1#m", cwd=tmp_path).refused(3, "allow_network")
    inside("bench", asked, "--model", "http://localhost:1/v1", cwd=tmp_path).refused(2, "ADDRESS#NAME")
    replies = recorded(asked, 0.5)
    inside("bench", asked, "--model", f"recorded:{replies}", cwd=tmp_path).refused(2, "log-probabilities")


def test_a_system_that_answers_is_a_strategy(asked: Path, tmp_path: Path) -> None:
    """AntGLM-Med's verification: an argument and a check for each of four options."""

    def say(request):
        return "Consistent: 0.9" if request.messages[-1].text.count("(B)") > 1 else "Consistent: 0.1"

    from fabrica.systems import load_system

    system = load_system("antglm_med")
    found = bench.load(asked).first(3)
    answered(Recorded(tmp_path / "v.jsonl", Scripted(say)), found.questions, system.answer(system.settings["paper"]))
    args = ["bench", asked, "--model", f"recorded:{tmp_path / 'v.jsonl'}", "--strategy", "antglm_med", "--limit", "3"]
    made = inside(*args, "--json", cwd=tmp_path).data
    assert made["summary"]["calls"] == 8.0


def test_pubmedqa_needs_its_abstract(tmp_path: Path) -> None:
    row = {"QUESTION": "Does it?", "CONTEXTS": ["It did."], "LABELS": ["RESULTS"], "final_decision": "yes"}
    (tmp_path / "p.json").write_text(json.dumps({"1": row}))
    assert bench.load(tmp_path / "p.json", context=True).questions[0].context == "It did."
    (tmp_path / "p.json").write_text(json.dumps({"1": row | {"CONTEXTS": []}}))
    with pytest.raises(UsageError, match="no item 'context'"):
        bench.load(tmp_path / "p.json", context=True)
