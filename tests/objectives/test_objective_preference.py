"""DPO: golden values, a frozen start, answers' tokens alone; a policy and a language model learn through the loop."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fabrica.curate.language.preference import Preference, as_record
from fabrica.encode.collate import Collate, Use
from fabrica.errors import UsageError
from fabrica.models.language_bundle import LanguageBundle, begin_of, language
from fabrica.models.policy import logits, readings, yes_no_policy
from fabrica.objectives.preference import CHOSEN, REJECTED, PreferText, PreferYes, dpo, log_probability
from fabrica.train import InMemory, fit
from fabrica.types import Batch, Item, Origin, Record, Schedule, Stage

PAIRS = [
    Preference(f"q{i}", f"q{i}", f"reports say {a} . is there {a} ?", f"no {a} here", f"yes {a}", "resist")
    for i, a in enumerate(("effusion", "mass", "fracture", "edema", "nodule", "hernia") * 4)
]


def test_golden_values() -> None:
    zero = torch.zeros(3)
    assert dpo(zero, zero, zero, zero).tolist() == pytest.approx([math.log(2)] * 3)
    made = dpo(torch.tensor([1.0]), torch.tensor([-2.0]), torch.tensor([0.5]), torch.tensor([-1.0]), beta=0.2)
    assert made.item() == pytest.approx(-math.log(1 / (1 + math.exp(-0.2 * (0.5 + 1.0)))), abs=1e-6)


@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.floats(-20, 20))
def test_only_differences_count(values: list[float], shift: float) -> None:
    """A constant added to both answers (of the policy, or of the start) changes nothing: the partition cancels."""
    a, b, c, d = (torch.tensor([v], dtype=torch.float64) for v in values)
    base = dpo(a, b, c, d).item()
    assert dpo(a + shift, b + shift, c, d).item() == pytest.approx(base, rel=1e-4, abs=1e-5)
    assert dpo(a, b, c + shift, d + shift).item() == pytest.approx(base, rel=1e-4, abs=1e-5)


def test_errors() -> None:
    one = torch.zeros(1)
    with pytest.raises(UsageError, match="beta=0"):
        dpo(one, one, one, one, beta=0.0)
    with pytest.raises(UsageError, match="four rows of one length"):
        dpo(one, one, one, torch.zeros(2))
    with pytest.raises(UsageError, match="at least one column"):
        yes_no_policy({})


# ------------------------------------------------------------ the yes/no policy


def pairs_of(policy, rows, chosen) -> list[Record]:
    start = logits(policy, readings(rows, ("own", "vote")))
    return readings(rows, ("own", "vote"), labels={"chosen": chosen, "reference": start})


def stage(bundle, steps: int, objective) -> Stage:
    return Stage("kbpt", bundle.collate, {"prefer": objective}, Schedule(steps, 16, 0.05), needs=("evidence",))


def test_the_policy_starts_at_ln_2_and_learns_to_resist(tmp_path: Path) -> None:
    policy = yes_no_policy({"own": 1.0, "vote": 2.5})
    rows = np.stack([np.linspace(0.2, 1.0, 48), -np.ones(48)], 1)
    result = fit(policy, [stage(policy, 60, PreferYes("evidence", 1.0))],
                 InMemory.of(pairs_of(policy, rows, np.ones(48)), policy.collate), tmp_path, save_every=0)  # fmt: skip
    assert result.losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert result.losses[-1] < 0.3
    assert (logits(policy, readings(rows, ("own", "vote"))) > -0.5).all()


def test_pairs_without_a_reference_or_evidence_do_not_count() -> None:
    policy = yes_no_policy({"own": 1.0, "vote": 2.5})
    whole = pairs_of(policy, np.ones((4, 2)), np.ones(4))
    whole[1] = whole[1].updated(labels={"chosen": 1.0})
    whole[2] = whole[2].updated(items={})
    loss = PreferYes("evidence")(policy.model, policy.collate(whole))
    assert loss.count == 2
    assert loss.total.item() == pytest.approx(math.log(2))
    none = PreferYes("evidence")(policy.model, policy.collate([whole[1], whole[2]]))
    assert (none.count, none.total.item()) == (0, 0.0)


# ------------------------------------------------------------ a language model


def small() -> tuple[LanguageBundle, Collate]:
    """A tiny causal model of its own vocabulary, and the collate of pairs."""
    origin = Origin("made", "a", "", "")
    words = [
        Record(
            p.id + s, p.id,
            items={"prompt": (Item("text", p.prompt, origin),), "answer": (Item("text", a, origin),)},
        )
        for p in PAIRS for s, a in (("c", p.chosen), ("r", p.rejected))
    ]  # fmt: skip
    torch.manual_seed(0)
    model, collate = language("small", words, lengths=(24, 8), vocabulary=80, width=32, depth=1, heads=2)
    answer = collate.fields["answer"].encode
    fields = {n: Use((n,), answer) for n in ("chosen", "rejected")}
    return LanguageBundle(model.eval(), collate), Collate(
        {"prompt": collate.fields["prompt"], **fields}, targets=(CHOSEN, REJECTED)
    )


def with_reference(bundle: LanguageBundle) -> list[Record]:
    made = []
    for p in PAIRS:
        good, bad = bundle.likelihoods([p.prompt], [p.chosen, p.rejected])[0]
        made.append(as_record(p, (float(good), float(bad))))
    return made


def test_a_language_model_starts_at_ln_2_counts_answers_alone_and_learns(tmp_path: Path) -> None:
    bundle, collate = small()
    records = with_reference(bundle)
    batch: Batch = collate(records[:6])
    objective = PreferText(begin_of(bundle.model.settings), beta=0.5)
    assert objective(bundle.model, batch).total.item() == pytest.approx(math.log(2), abs=1e-5)
    said = log_probability(bundle.model, batch.fields["prompt"], batch.fields["chosen"], 0).detach()
    alone = [bundle.likelihoods([p.prompt], [p.chosen])[0, 0] for p in PAIRS[:6]]
    np.testing.assert_allclose(said, alone, atol=1e-4)
    held = InMemory.of(records, collate)
    one = Stage("kbpt", collate, {"prefer": objective}, Schedule(20, 8, 3e-3), needs=("prompt", "chosen", "rejected"))
    result = fit(bundle, [one], held, tmp_path, save_every=0)
    assert np.mean(result.losses[-5:]) < 0.5 * math.log(2)
    after = bundle.likelihoods([PAIRS[0].prompt], [PAIRS[0].chosen, PAIRS[0].rejected])[0]
    assert after[0] - after[1] > records[0].labels[CHOSEN] - records[0].labels[REJECTED]


def test_a_prompt_of_other_length_moves_no_token_of_the_answer() -> None:
    """Padding in a batch changes no log-probability."""
    bundle, collate = small()
    longer = as_record(
        Preference("z", "z", PAIRS[0].prompt + " " + PAIRS[1].prompt, "yes mass", "no mass here"), (0, 0)
    )
    first = as_record(PAIRS[0], (0, 0))
    both, alone = (
        log_probability(bundle.model, b.fields["prompt"], b.fields["chosen"], 0)[0].item()
        for b in (collate([first, longer]), collate([first]))
    )
    assert both == pytest.approx(alone, abs=1e-5)
