"""ProbMed as it is wired: one call asks, logs, resumes and scores; knobs; a plan that makes a corpus of questions."""

from dataclasses import replace

import pytest

from fabrica.chat import Scripted
from fabrica.errors import UsageError
from fabrica.evaluate import answerers
from fabrica.phantom.facts import DIMS, facts
from fabrica.systems import load_system
from fabrica.systems.probmed import dims, plan, probe, questions

SYSTEM = load_system("probmed")
SETTINGS = replace(SYSTEM.settings["tiny"], values=DIMS)
RECORDS = facts(60, 9).records


def model(say, name="m"):
    return answerers.Answerer(name, say, questions(SETTINGS, RECORDS))


def test_one_call_gives_the_table(tmp_path) -> None:
    result = probe(model(answerers.yes_bias(1.0)), RECORDS, tmp_path / "rows.jsonl", SETTINGS, count=50)
    modality = result.line("modality")
    assert (modality.all, modality.first, modality.coin) == (0.0, 1.0, 0.25)
    assert result.line("overall").n == 60
    assert result.incomplete == 0
    assert set(result.statuses) == {"right", "wrong"}
    cells = [line for line in result.table if line.cell]
    assert {line.cell for line in cells} <= {f"{m} x {o}" for m in DIMS["modality"] for o in DIMS["organ"]}
    assert any(line.few for line in cells)


def test_a_second_call_asks_nothing_and_another_prompt_wants_another_file(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    first = probe(model(answerers.coin), RECORDS, path, SETTINGS, count=20)
    silent = Scripted([], name="m")
    again = probe(silent, RECORDS, path, SETTINGS, count=20)
    assert again.verdicts == first.verdicts
    assert not silent.requests
    with pytest.raises(UsageError, match="answers of another run: prompt"):
        probe(silent, RECORDS, path, replace(SETTINGS, prompt="student"), count=20)


def test_gold_is_not_in_what_the_model_is_shown(tmp_path) -> None:
    seen = Scripted(lambda request: "yes", name="m")
    probe(seen, RECORDS[:5], tmp_path / "rows.jsonl", SETTINGS, count=5)
    for request in seen.requests:
        (message,) = request.messages
        assert message.text.splitlines()[1:] == ["Answer with yes or no."]
        assert sum(not isinstance(part, str) for part in message.parts) == 1


def test_the_student_prompt_says_that_it_is_an_examination(tmp_path) -> None:
    seen = Scripted(lambda request: "yes", name="m")
    probe(seen, RECORDS[:2], tmp_path / "rows.jsonl", replace(SETTINGS, prompt="student"), count=5)
    assert {m.role for r in seen.requests for m in r.messages} == {"system", "user"}


def test_knobs(tmp_path) -> None:
    some = replace(SETTINGS, dimensions=("organ", "position"), twins_per_fact=2)
    assert list(dims(some)) == ["organ", "position"]
    asked = questions(some, RECORDS)
    assert {p.of for p in asked} == {3}
    sees = answerers.skilled({"condition": 0.5, "position": 1.0})
    plain, after = (
        probe(model(sees), RECORDS, tmp_path / f"{p}.jsonl", replace(SETTINGS, procedural=p), count=5)
        for p in (False, True)
    )
    assert after.line("position").n < plain.line("position").n
    assert after.line("condition").n == plain.line("condition").n


def test_the_plan_makes_records_of_questions() -> None:
    (step,) = plan(SETTINGS)
    made = list(step(RECORDS, lambda record, reason: None))
    assert len(made) == len(questions(SETTINGS, RECORDS))
    assert SYSTEM.plan is plan
