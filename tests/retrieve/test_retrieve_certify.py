"""The certificate and the choices (sheet S77): golden p-values, family-wise error, what voids it; no own reports."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from fabrica.errors import Leak, Refused, UsageError
from fabrica.phantom.references import references
from fabrica.retrieve import Run
from fabrica.retrieve.certify import Certificate, RiskControlled, apart, needed, p_value, rejected
from fabrica.retrieve.choose import Certified, FixedK, Hit, Ratio, hits
from fabrica.retrieve.reports import Query, ReportStore
from fabrica.types import Item, Origin, Record, Rights

HITS = tuple(Hit(f"d{i}", s, i) for i, s in enumerate((0.9, 0.8, 0.5, 0.1, 0.0), 1))


def names(n: int) -> list[str]:
    return [f"p{i}" for i in range(n)]


# ------------------------------------------------------------ p-values


def test_golden_p_values() -> None:
    """Sheet S77: n = 500, r = 0.15, alpha = 0.2."""
    got = [float(p_value(0.15, 500, 0.2, test=t)) for t in ("hoeffding", "bentkus", "hoeffding_bentkus")]
    assert got == [pytest.approx(0.01516, abs=5e-6), pytest.approx(0.00648, abs=5e-6), pytest.approx(0.00648, abs=5e-6)]
    assert float(p_value(0.15, 500, 0.2, test="bentkus")) == pytest.approx(np.e * binom.cdf(75, 500, 0.2))


@given(st.integers(1, 3000), st.floats(0.02, 0.9), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_p_grows_with_the_risk_and_is_1_above_alpha(n: int, alpha: float, risks: list[float]) -> None:
    p = p_value(sorted(risks), n, alpha)
    assert (np.diff(p) >= -1e-12).all()
    assert ((p >= 0) & (p <= 1)).all()
    above = p_value(min(1.0, alpha + 0.05), 100_000, alpha)
    assert float(above) == 1.0


def test_p_values_are_valid_at_the_edge() -> None:
    """At a true risk of alpha, P(p <= u) <= u."""
    rng = np.random.default_rng(0)
    for n, alpha in ((60, 0.2), (400, 0.1)):
        p = p_value(rng.binomial(n, alpha, 20_000) / n, n, alpha)
        for u in (0.01, 0.05, 0.1, 0.3):
            assert (p <= u).mean() <= u + 3 * np.sqrt(u / 20_000)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.4))
def test_holm_rejects_no_fewer_than_bonferroni_and_both_heed_the_number_of_tests(p: list[float], delta: float) -> None:
    bonferroni, holm = (rejected(p, delta, fwer=w) for w in ("bonferroni", "holm"))
    assert (bonferroni <= holm).all()
    assert (bonferroni == (np.asarray(p) <= delta / len(p))).all()
    assert (rejected([*p, 1.0], delta) <= [*rejected(p, delta), False]).all()


def test_fixed_sequence_stops_at_the_first_failure_and_wants_its_order() -> None:
    p = [0.05, 0.2, 0.01]
    assert rejected(p, 0.1, fwer="fixed_sequence", order=(2, 0, 1)).tolist() == [True, False, True]
    assert rejected(p, 0.1, fwer="fixed_sequence", order=(1, 0, 2)).tolist() == [False, False, False]
    for order in (None, (0, 1), (0, 0, 1)):
        with pytest.raises(UsageError, match="from other data"):
            rejected(p, 0.1, fwer="fixed_sequence", order=order)


@pytest.mark.parametrize("fwer", ["bonferroni", "holm", "fixed_sequence"])
def test_the_family_wise_error_is_kept(fwer: str) -> None:
    """Every candidate at the edge of alpha: any certified one is a violation."""
    rng = np.random.default_rng(1)
    order = tuple(range(8)) if fwer == "fixed_sequence" else None
    control = RiskControlled(0.2, 0.1, tuple(range(8)), fwer=fwer, order=order)
    broken = [bool(control.fit(rng.random((300, 8)) < 0.2, names(300)).valid) for _ in range(600)]
    assert np.mean(broken) <= 0.1


# ------------------------------------------------------------ the certificate


def losses(n: int, seed: int = 0, sizes: tuple[int, ...] = tuple(range(11))) -> np.ndarray:
    return references(n, seed).losses(sizes, trust=0.6)


def test_a_certificate_says_what_it_says_and_what_not(tmp_path) -> None:
    bound = {"model": "m1", "prompt": "closed@1", "store": "s1"}
    made = RiskControlled(0.2, 0.1).fit(losses(800), names(800), bound=bound)
    assert made.valid
    assert set(made.valid) <= set(range(11))
    assert "i.i.d." in made.text
    assert "not covered" in made.text
    assert made.pick("cost") == min(made.valid)
    assert made.risk(made.pick()) == min(made.risk(k) for k in made.valid)
    assert Certificate.load(made.save(tmp_path / "c.json")) == made
    made.check(bound)
    for name in bound:
        with pytest.raises(Refused, match=f"another {name}") as error:
            made.check({**bound, name: "other"})
        assert error.value.code == "certificate_void"
    with pytest.raises(Refused, match="certificate_void"):
        made.check({})
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(Refused, match="certificate_bad"):
        Certificate.load(tmp_path / "bad.json")


def test_too_few_cases_certify_nothing_and_say_how_many_would_do() -> None:
    made = RiskControlled(0.2, 0.1).fit(losses(25), names(25))
    assert made.valid == ()
    assert made.pick() is None
    more = needed(min(made.risks), 0.2, 0.1, 11)
    assert f"about {more} cases would do" in made.text
    assert Certified(made).says_none
    assert Certified(made)(HITS) == ()
    bad = RiskControlled(0.05, 0.1, (0, 1)).fit(np.ones((40, 2)), names(40))
    assert "no number of cases would do" in bad.why


def test_rows_of_one_patient_count_once() -> None:
    table = losses(300)
    once = RiskControlled().fit(table, names(300))
    twice = RiskControlled().fit(np.repeat(table, 5, 0), np.repeat(names(300), 5).tolist())
    assert twice == once
    assert twice.n == 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "between 0 and 1"), ({"alpha": 1.0}, "between 0 and 1"), ({"delta": 1.5}, "between 0 and 1"),
        ({"candidates": ()}, "at least one"), ({"candidates": (1, 1)}, "none twice"),
        ({"candidates": (-1,)}, "below 0"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(change, message) -> None:
    with pytest.raises(UsageError, match=message):
        replace(RiskControlled(), **change)


def test_losses_that_make_no_sense() -> None:
    control = RiskControlled(candidates=(0, 1))
    for table in (np.full((3, 2), np.nan), np.full((3, 2), 2.0), np.zeros((3, 3)), np.zeros((2, 2)), np.zeros((0, 2))):
        with pytest.raises(UsageError, match=r"losses of shape|a loss is not"):
            control.fit(table, names(3))
    for n, alpha in ((0, 0.2), (5, 0.0)):
        with pytest.raises(UsageError, match="wanted n >= 1"):
            p_value(0.1, n, alpha)
    with pytest.raises(UsageError, match="did you mean 'bentkus'"):
        p_value(0.1, 5, 0.2, test="bentkos")


def test_parts_that_share_a_patient_are_a_leak() -> None:
    apart(store=["a", "b"], calibration=["c"], test=["d"], training=[])
    with pytest.raises(Leak, match="calibration and test share 1 subjects"):
        apart(store=["a"], calibration=["c"], test=["d", "c"])


# ------------------------------------------------------------ choices


def test_choices() -> None:
    assert [h.id for h in FixedK(2)(HITS)] == ["d1", "d2"]
    assert FixedK(0)(HITS) == ()
    assert len(FixedK(9)(HITS)) == 5  # fewer than asked for: what there is
    assert [h.id for h in Ratio(2.0, 9)(HITS)] == ["d1", "d2", "d3"]
    assert [h.id for h in Ratio(100.0, 9)(HITS)] == ["d1", "d2", "d3", "d4"]  # 0 ends it
    assert [h.id for h in Ratio(2.0, 1)(HITS)] == ["d1"]
    assert Ratio(2.0, 3)(()) == ()
    assert Ratio(2.0, 3)((Hit("a", -0.5, 1),)) == ()
    made = RiskControlled(0.2, 0.1).fit(losses(800), names(800))
    assert len(Certified(made)(HITS)) == min(made.pick(), 5)
    assert len(Certified(made, "cost")(HITS)) == min(min(made.valid), 5)
    for bad in (lambda: FixedK(-1), lambda: Ratio(1.0, 3), lambda: Ratio(float("nan"), 3), lambda: Ratio(2.0, -1)):
        with pytest.raises(UsageError):
            bad()


def test_scores_that_are_no_numbers_are_an_error() -> None:
    run = Run(("q",), ("a",), np.array([[0]]), np.array([[np.nan]], np.float32))
    with pytest.raises(UsageError, match="the score of 'a' is nan"):
        hits(run, "q")


# ------------------------------------------------------------ the store


TEXTS = {"r1": "small left effusion", "r2": "large left effusion", "r3": "normal heart", "r4": "rib fracture"}
SUBJECTS = {"r1": "p1", "r2": "p1", "r3": "p2", "r4": "p3"}
ROWS = np.eye(4, dtype=np.float32) + 0.1


def test_ones_own_reports_are_never_found() -> None:
    store = ReportStore(TEXTS, SUBJECTS, ROWS)
    for q in (
        Query("q", "p1", ROWS[0]),
        Query("q", "p1", None, "left effusion"),
        Query("q", "p1", ROWS[0], "effusion"),
    ):
        found = [d for d, _ in store.search([q], 10).found("q")]
        assert not {"r1", "r2"} & set(found)
    own = store.search([Query("r4", "somebody", ROWS[3])], 10).found("r4")
    assert "r4" not in [d for d, _ in own]
    assert len(own) == 3  # fewer than k: what there is


def test_picture_and_words_are_joined() -> None:
    store = ReportStore(TEXTS, SUBJECTS, ROWS)
    by_row = store.search([Query("q", "p9", ROWS[2])], 4).found("q")
    assert by_row[0][0] == "r3"
    by_word = store.search([Query("q", "p9", None, "fracture")], 4).found("q")
    assert [d for d, _ in by_word] == ["r4"]
    both = store.search([Query("q", "p9", ROWS[2], "fracture")], 4).found("q")
    assert {both[0][0], both[1][0]} == {"r3", "r4"}


def test_a_store_of_records_and_its_hash() -> None:
    origin = Origin("made", "a", "", "")
    records = [Record(i, SUBJECTS[i], items={"report": (Item("text", t, origin),)}) for i, t in TEXTS.items()]
    rows = dict(zip(TEXTS, ROWS, strict=True))
    store = ReportStore.of_records(records, rows)
    assert store.sha256 == ReportStore(TEXTS, SUBJECTS, ROWS).sha256
    other = [records[0].updated(items={"report": (Item("text", "edited", origin),)}), *records[1:]]
    assert ReportStore.of_records(other, rows).sha256 != store.sha256
    held = [r.updated(rights=Rights(share="none")) if r.id == "r1" else r for r in records]
    assert "r1" not in ReportStore.of_records(held, rows).texts
    with pytest.raises(UsageError, match="the store is empty"):
        ReportStore.of_records([r.without("report") for r in records], rows)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ReportStore({}, {}), "no document"),
        (lambda: ReportStore(TEXTS, {"r1": "p1"}), "without a patient"),
        (lambda: ReportStore(TEXTS, SUBJECTS, np.full((4, 2), np.nan, np.float32)), "wanted finite"),
        (lambda: ReportStore(TEXTS, SUBJECTS).search([Query("q", "p", ROWS[0])], 2), "wants rows of the store"),
        (lambda: ReportStore(TEXTS, SUBJECTS, ROWS).search([Query("q", "p")], 2), "nothing to search by"),
        (lambda: ReportStore(TEXTS, SUBJECTS, ROWS).search([Query("q", "p", ROWS[0][:2])], 2), "not one space"),
        (lambda: ReportStore(TEXTS, SUBJECTS, ROWS).search([Query("q", "p", ROWS[0])] * 2, 2), "one id"),
    ],
)
def test_errors_of_the_store(make, message) -> None:
    with pytest.raises(UsageError, match=message):
        make()
