"""The scripted worlds hold what they claim: one planted contradiction a wrong option, readers of stated competence."""

import re

import numpy as np
import pytest

from fabrica.phantom.chains import Chains
from fabrica.phantom.vignettes import Vignettes, band

ASK = "{text}\n{options}\n\n{rest}"


def listed(options):
    return "\n".join(f"({'ABCDE'[i]}) {o}" for i, o in enumerate(options))


def test_each_wrong_option_contradicts_exactly_one_fact_and_the_right_one_none():
    for case in Vignettes(60, seed=3).cases:
        _, sex, time = re.search(r"Case (\d+): a (\w+) of \d+ years with \w+, (.+?)\. Pot", case.text).groups()
        value = float(re.search(r"is ([\d.]+) mmol", case.text)[1])
        wrong = [(d.sex != sex) + (d.band != band(value)) + (d.time != time) for d in case.options]
        assert wrong == [int(i != case.right) for i in range(len(case.options))]
        sign = re.search(r"years with (\w+),", case.text)[1]
        assert [sign in d.name for d in case.options] == [i == case.salient for i in range(len(case.options))]
        assert case.likes[0] == case.options[case.salient if case.biased else case.right].name


def check(case, name, argument, others="all"):
    options = listed([d.name for d in case.options])
    rest = " ".join(d.name for d in case.options if d.name != name) if others == "all" else "(not shown)"
    return ASK.format(
        text=case.text, options=options,
        rest=f"Claim: (A) {name} is the answer, because:\n{argument}\n\nArguments for the other options:\n{rest}",
    )  # fmt: skip


def test_the_check_reads_the_argument_and_sees_what_it_can_see():
    world = Vignettes(300, seed=4)
    sharp, blind = world.reader(detect=1.0, false_alarm=0.0), world.reader(detect=0.0, false_alarm=0.0)
    usual, caught, alarms, n = world.reader(), 0, 0, 0
    for case in world.cases:
        argue = ASK.format(
            text=case.text, options=listed([d.name for d in case.options]),
            rest="Assume that (A) {} is the answer. Explain.",
        )  # fmt: skip
        for i, d in enumerate(case.options):
            argument = sharp(argue.format(d.name), 0.0, 0)
            assert d.sex in argument
            score = float(sharp(check(case, d.name, argument), 0.0, 0).split(": ")[-1])
            assert (score >= 0.5) == (i == case.right)
            assert "No contradiction" in blind(check(case, d.name, argument), 0.0, 0)
            seen = "A fact is contradicted" in usual(check(case, d.name, argument), 0.0, 0)
            caught, alarms, n = caught + (seen and i != case.right), alarms + (seen and i == case.right), n + 1
    wrong = n - len(world.cases)
    assert caught / wrong == pytest.approx(0.85, abs=0.04)
    assert alarms / len(world.cases) == pytest.approx(0.1, abs=0.05)
    case = world.cases[0]
    other, right = case.options[case.right - 1], case.options[case.right].name
    theirs = f"{other.name} is seen in a {other.sex}, with {other.band} potassium, {other.time}."
    swapped = sharp(check(case, right, theirs), 0.0, 0)
    assert "A fact is contradicted" in swapped, "another option's argument must not pass: the text is what is checked"


def test_a_preference_needs_the_other_arguments():
    case = Vignettes(1, seed=5).cases[0]
    reader = Vignettes(1, seed=5).reader(detect=0.0, false_alarm=0.0)
    d = next(d for d in case.options if d.name == case.likes[0])
    argument = f"{d.name} is seen in a {d.sex}, with {d.band} potassium, {d.time}."
    with_all, alone = (float(reader(check(case, d.name, argument, o), 0.0, 0).split(": ")[-1]) for o in ("all", "none"))
    assert with_all > alone == 0.6


def test_chains_are_right_as_often_as_planted_and_wrong_ones_quote_what_is_not_stated():
    world = Chains(40, seed=6)
    reader = world.reader()
    records = world.records()
    for i in (0, 7, 23):
        options = [item.text() for item in records[i].items["option"]]
        text = ASK.format(text=records[i].first("question").text(), options=listed(options), rest="Think.")
        replies = [reader(text, 0.7, seed) for seed in range(600)]
        right = f"({'ABCD'[int(records[i].labels['answer'])]})"
        share = np.mean([r.endswith(f"Answer: {right}") for r in replies])
        assert share == pytest.approx(world.q[i], abs=0.07)
        assert all((f"F{i}." in r) == r.endswith(f"Answer: {right}") for r in replies)
        assert len(set(replies)) == 600
        assert reader(text, 0.0, 1) == reader(text, 0.0, 2)
        mute = world.reader(samples=False)
        assert len({mute(text, 0.7, seed) for seed in range(9)}) == 1


def test_the_one_sided_world_puts_wrong_mass_on_one_distractor():
    world = Chains(500, seed=7, one_sided=1.0)
    assert (world.misled == (world.q < 0.5)).all()
    assert not Chains(500, seed=7).misled.any()
    np.testing.assert_allclose(world.p.sum(1), 1)
    np.testing.assert_array_equal(world.q, Chains(500, seed=7).q)
