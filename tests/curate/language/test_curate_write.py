"""The writing step: facts, prompt and model in the origin, failures as drops, order kept, the engine resumes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fabrica.chat import Budgeted, BudgetSpent, Cached, Checked, Request, Scripted, TemplateGrammar, prompt
from fabrica.chat.request import ChatFailed
from fabrica.corpus import Corpus
from fabrica.curate import run
from fabrica.curate.engine.plan import signature
from fabrica.curate.language.write import Write, WriteStopped, label_facts, written_facts
from fabrica.errors import UsageError
from fabrica.types import Absent, Item, Origin, Record, Step

ORIGIN = Origin("made", "a.png", "ab", "CC0-1.0")
SCHEMA = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}
ASK = prompt("caption")


def record(n: int, labels: dict[str, Any] | None = None, **more: tuple[Item, ...]) -> Record:
    image = (Item("image", np.full((8, 8), n % 256, np.uint8), ORIGIN),)
    labels = {"mass": float(n % 2), "effusion": 1.0} if labels is None else labels
    return Record(f"r{n:03}", f"p{n}", {"modality": "xray"}, {"image": image, **more}, labels=labels)


def written(step: Write, *records: Record) -> tuple[list[Record], list[tuple[str, str]]]:
    dropped: list[tuple[str, str]] = []
    return list(step(iter(records), lambda r, why: dropped.append((r.id, why)))), dropped


def test_the_text_says_who_wrote_it_from_what() -> None:
    step = Write(TemplateGrammar(), ASK)
    assert isinstance(step, Step)
    out, dropped = written(step, record(1))
    item = out[0].first("caption")
    assert item is not None
    assert not dropped
    assert (item.kind, item.origin.by, item.origin.licence) == ("text", "model", "CC0-1.0")
    assert item.origin.steps[:3] == ("write", f"prompt:{ASK.mark}", "model:template-grammar@1")
    assert written_facts(item) == {"modality": "xray", "findings": ["effusion", "mass"], "absent": []}
    assert "mass" in item.text().lower()
    assert written_facts(out[0].items["image"][0]) is None


def test_texts_differ_by_record_and_are_the_same_each_run() -> None:
    records = [record(n, {"mass": 1.0}) for n in range(30)]
    texts = [[r.first("caption").text() for r in written(Write(TemplateGrammar(), ASK, workers=w), *records)[0]]
             for w in (1, 4)]  # fmt: skip
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 10


def test_records_without_facts_pass_and_older_texts_stay() -> None:
    old = Item("text", "old", ORIGIN)
    out, dropped = written(Write(TemplateGrammar(), ASK), record(1, {}), record(2, caption=(old,)))
    assert not dropped
    assert "caption" not in out[0].items
    assert out[1].items["caption"][0] == old
    assert len(out[1].items["caption"]) == 2
    facts = label_facts(record(3, {"mass": Absent.NOT_DONE, "score:sharp": 3.0, "cyst": 0.0}))
    assert facts == {"modality": "xray", "findings": [], "absent": ["cyst"]}


def test_images_and_schema_reach_the_model() -> None:
    inner = Scripted(lambda r: json.dumps({"text": f"{len(r.messages[-1].parts)} parts"}))
    out, _ = written(Write(Checked(inner), ASK, images=("image",), schema=SCHEMA), record(1))
    assert out[0].first("caption").text() == "2 parts"
    assert inner.requests[0].schema == SCHEMA


def test_failures_are_drops_with_their_reason_and_the_rest_goes_on() -> None:
    def answer(request: Request) -> Any:
        n = len(inner.requests)
        return [ChatFailed("chat_timeout", "late"), "   ", "A mass."][n % 3]

    inner = Scripted(answer)
    out, dropped = written(Write(inner, ASK), *[record(n) for n in range(6)])
    assert [r.id for r in out] == ["r001", "r004"]
    assert dropped == [("r000", "write_empty"), ("r002", "write_chat_timeout"), ("r003", "write_empty"),
                       ("r005", "write_chat_timeout")]  # fmt: skip
    junk = Checked(Scripted(lambda r: "junk"))
    assert written(Write(junk, ASK, schema=SCHEMA), record(1))[1] == [("r001", "write_reply_schema")]
    wrong = Scripted(lambda r: "[1]")
    assert written(Write(wrong, ASK, schema=SCHEMA), record(1))[1] == [("r001", "write_reply_schema")]


def test_a_model_that_is_gone_stops_the_run_and_a_spent_budget_does_at_once() -> None:
    down: Any = ChatFailed("chat_unreachable", "gone")
    with pytest.raises(WriteStopped, match="5 records in a row"):
        written(Write(Scripted(lambda r: down), ASK, give_up=5), *[record(n) for n in range(9)])
    with pytest.raises(BudgetSpent):
        written(Write(Budgeted(TemplateGrammar(), max_tokens=900), ASK), *[record(n) for n in range(9)])
    with pytest.raises(UsageError):
        Write(TemplateGrammar(), ASK, give_up=0)


def test_the_signature_names_model_and_prompt_and_no_more_than_changes_texts() -> None:
    params = signature(Write(TemplateGrammar(), ASK, workers=1))
    assert params == signature(Write(TemplateGrammar(), ASK, workers=8))
    assert params["params"]["prompt"] == ASK.mark
    assert params["params"]["facts"] == "fabrica.curate.language.write:label_facts"
    assert params != signature(Write(TemplateGrammar(), ASK, seed=1))


def test_in_the_engine_a_stopped_run_goes_on_and_asks_nothing_twice(tmp_path: Path) -> None:
    source = Corpus.at(tmp_path / "in")
    source.append([record(n) for n in range(40)])
    turn = {"broken": True}

    def answer(request: Request) -> Any:
        if turn["broken"] and len(inner.requests) > 25:
            return ChatFailed("chat_server", "down")
        return f"A mass. {request.seed}"

    inner = Scripted(answer)
    step = Write(Cached(inner, tmp_path / "replies.sqlite"), ASK, workers=3, give_up=3)
    with pytest.raises(WriteStopped):
        run([step], source, tmp_path / "out")
    turn["broken"] = False
    answered = {r.seed for r in inner.requests[:25]}
    before = len(inner.requests)
    report = run([step], source, tmp_path / "out")
    assert (report.read, report.kept) == (40, 40)
    assert not answered & {r.seed for r in inner.requests[before:]}
    assert len(inner.requests) - before == 15


def test_the_fact_guard_passes_what_the_grammar_writes_and_stops_a_liar() -> None:
    """Two rule sets that do not know of each other: the grammar's sentences and the assertions that read them."""
    from fabrica.curate.language.guard import FactGuard
    from fabrica.text.lexicon import FINDINGS

    names = {k: tuple(FINDINGS[k]) for k in ("effusion", "pneumothorax", "mass", "consolidation", "cardiomegaly")}
    rng = np.random.default_rng(0)
    records = [record(n, {k: float(rng.integers(2)) for k in names}) for n in range(300)]
    dropped: list[str] = []

    def drop(r: Record, why: str) -> None:
        dropped.append(why)

    guard = FactGuard(names=names)
    assert len(list(guard(Write(TemplateGrammar(), ASK)(records, drop), drop))) == 300, dropped[:5]
    liar = Scripted(lambda r: "There is a fracture.")
    assert list(guard(Write(liar, ASK)(records[:20], drop), drop)) == []
    assert set(dropped) <= {"missing_finding", "unlisted_finding"}
