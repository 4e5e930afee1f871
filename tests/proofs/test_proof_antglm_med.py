"""AntGLM-Med as it is wired (sheet S72, "Not a toy"), and its proof at a tiny size."""

import itertools

import numpy as np
import pytest

from fabrica.chat.question import of_record
from fabrica.chat.scripted import Told
from fabrica.errors import UsageError
from fabrica.phantom.vignettes import Vignettes
from fabrica.proofs import Plan, _choices, antglm_med
from fabrica.systems import load_system

SYSTEM = load_system("antglm_med")
SMALL = antglm_med.Size((100, 101), (100,), 40, 12, 24, 0.02, False, 0)


def test_the_system_argues_for_and_checks_every_option():
    cases = Vignettes(12, seed=100)
    answer = SYSTEM.answer(SYSTEM.settings["paper"])
    for record in cases.records():
        question = of_record(record)
        made = answer(Told(cases.reader()), question)
        n = len(question.options)
        assert len(made.arguments) == len(made.verdicts) == n
        assert made.calls == 2 * n


def test_the_baseline_has_as_many_calls():
    cases = Vignettes(12, seed=100)
    for record in cases.records():
        question = of_record(record)
        arms = {n: s(Told(cases.reader()), question).calls for n, s in antglm_med.strategies().items()}
        assert arms[antglm_med.VOTING] == arms[antglm_med.VERIFIED]


def test_a_perfect_verifier_is_nearly_always_right_and_a_blind_one_is_worse_than_voting():
    size = antglm_med.Size((100,), (), 150)
    found = antglm_med.world(antglm_med.Job("world", 100, size), Plan())
    sweep = found.details["detection: verified minus voting"]
    assert sweep["1.0"] > 0.25
    assert found.values[antglm_med.BLIND] < found.values[antglm_med.VOTING] < found.values[antglm_med.VERIFIED]
    assert 0.1 < found.details["break_even_detection"] < 0.6
    assert set(found.details["parsed"].values()) == {1.0}


def test_break_even_lies_where_the_gain_turns():
    assert antglm_med.break_even({0.2: -0.1, 0.4: 0.1}) == pytest.approx(0.3)
    assert antglm_med.break_even({0.2: -0.2, 0.4: -0.1}) is None
    assert antglm_med.break_even({0.2: 0.2}) == 0.2


def test_without_pre_training_nothing_of_the_textbook_is_in_the_data():
    from fabrica.phantom.textbook import Textbook

    book = Textbook(12, seed=100)
    kept = {d.name for d in book.kept}

    def words(rows):
        return {w for r in rows for items in r.items.values() for w in items[0].text().split()}

    bare, whole = antglm_med._data(book, None), antglm_med._data(book, False)
    assert not any(kept & words(bare[stage]) for stage in ("base", "instruct", "adapt"))
    assert kept <= words(whole["pretrain"])
    assert kept <= words(whole["instruct"]), "the textbook is mixed into the instructions against forgetting"
    assert not kept & words(book.articles(60)), "articles tell nothing of the drugs that are kept for the test"
    general = {r.items["answer"][0].text() for r in book.general(2000)}
    for stage in ("pretrain", "instruct", "adapt"):
        share = sum(r.items["answer"][0].text() in general for r in whole[stage]) / len(whole[stage])
        wanted = antglm_med.GENERAL[stage]
        assert share == pytest.approx(wanted / (1 + wanted), abs=0.01), "everyday text stands in every stage"
    assert len({r.id for r in whole["instruct"]}) == len(whole["instruct"])


def test_the_proof_runs_small_and_says_what_it_leaves_out(tmp_path):
    jobs = [antglm_med.Job(what, 100, SMALL, str(tmp_path)) for what in ("stages", "without")]
    jobs += [antglm_med.Job("world", s, SMALL) for s in SMALL.seeds]
    proof = antglm_med._proof(SMALL, jobs, [antglm_med.part(j, Plan()) for j in jobs])
    assert {c.name for c in proof.controls} == {"checks of no power", "shuffled textbook", "forgetting", "chain"}
    assert len(proof.claims) == 5
    chain = proof.details["stages 100"]["chain"]
    assert [row[0] for row in chain] == list(antglm_med.ORDER)
    assert all(a[2] == b[1] for a, b in itertools.pairwise(chain)), "hashes link the stages"
    assert chain[0][3] == chain[2][3] != chain[3][3], "the last stage trains the adapter alone"
    assert "real arm" in proof.notes.lower()
    risen = proof.details["stages 100"]["general perplexity risen"]
    assert set(risen) == {*antglm_med.ORDER, "all stages"}
    worst = max(v for stage, v in risen.items() if stage != "base")
    assert proof.arms["forgotten"] == (worst,), "the guard covers the adapter's stage, and all stages together"
    assert proof.verdict == "not shown", "a few steps show nothing"


def test_skills_by_task_need_the_task(tmp_path):
    from dataclasses import replace

    from fabrica.phantom.textbook import Textbook
    from fabrica.train import fit

    book = Textbook(12, seed=100)
    settings = replace(SYSTEM.settings["tiny"], adapter="cpoly", tasks=("a", "b"), width=32, depth=1, steps=2, batch=4)
    rows = book.related(8, 0) + book.related(8, 1)
    bundle = SYSTEM.build(settings, rows)
    stages = SYSTEM.stages(settings, bundle)
    fit(bundle, stages[2:], rows, tmp_path / "a", save_every=0)
    with pytest.raises(UsageError, match="no label 'task'"):
        fit(bundle, stages[2:], [r.updated(labels={}) for r in rows], tmp_path / "b", save_every=0)
    with pytest.raises(UsageError, match="the adapter knows"):
        fit(bundle, stages[2:], [r.updated(labels={"task": 2.0}) for r in rows], tmp_path / "c", save_every=0)


def test_skills_by_task_and_adapters_start_from_the_same_weights_and_meet_the_same_grid(tmp_path, monkeypatch):
    from fabrica.phantom.textbook import Textbook

    monkeypatch.setattr(antglm_med, "SKILL_STEPS", 4)
    monkeypatch.setattr(antglm_med, "RELATED", 2)
    book, job = Textbook(12, 100), antglm_med.Job("stages", 100, SMALL)
    bundle, order = antglm_med.built(book, job)
    antglm_med._chain(bundle, order[:1], antglm_med._data(book, False), tmp_path, job, Plan())
    found = antglm_med.skills(book, job, Plan(), tmp_path / "1-base", (2e-3, 4e-3))
    assert len(found) == 4
    assert all(0 <= v <= 1 for v in found.values())
    assert {name.rsplit(", ", 1)[1] for name in found} == {"0.002", "0.004"}


def test_calibration_takes_away_what_a_model_always_prefers():
    class Yes:
        def likelihoods(self, prompts, answers, batch):
            knows = {"yes": 0, "no": 1, "maybe": 2}
            rows = np.zeros((len(prompts), 3))
            for i, p in enumerate(prompts):
                rows[i, knows[p]] = 1.0
            return rows + np.array([5.0, 0.0, 0.0])

    from fabrica.types import Item, Origin, Record

    def row(i, truth):
        text = Item("text", truth, Origin("t", str(i), "", "CC0-1.0", "synthetic"))
        return Record(str(i), str(i), {"told": ("abstract", "textbook")[i % 2]}, {"prompt": (text,), "answer": (text,)})

    tests = [row(i, ("yes", "no", "maybe")[i % 3]) for i in range(12)]
    found = antglm_med.scored(Yes(), tests)
    assert found["all"] == pytest.approx(1 / 3), "yes is likelier in any case"
    assert found["all, calibrated"] == found["textbook, calibrated"] == 1.0


@pytest.mark.real_data
def test_the_real_arm_reads_the_real_questions(shared_data, monkeypatch):
    """The arm itself on twenty questions, with a scripted model in place of the weights."""
    folder = shared_data("pubmedqa")
    monkeypatch.setattr(antglm_med, "real", lambda name: folder)

    class Likely(Told):
        def score(self, messages, answers):
            assert "yes" in answers
            assert len(messages[-1].text) > 300, "the abstract is shown"
            return [-1.0 * (a != "yes") - 1 for a in answers]

    monkeypatch.setattr(_choices, "local", lambda name, device: Likely(lambda t, x, s: ""))
    found = antglm_med.really(antglm_med.Job("real", 0, antglm_med.Size(real=150)), Plan())
    assert found.values["real PubMedQA: likeliest words"] == found.values["real PubMedQA: always yes"]
    assert 0.45 < found.values["real PubMedQA: always yes"] < 0.65
    assert "not shown better than always A" in found.told[0]
    assert found.details["questions, left out"][0] == 150
