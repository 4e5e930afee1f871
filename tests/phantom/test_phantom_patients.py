"""Latent truth of the phantom's patients, and the knobs that make data hard."""

import pickle

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.phantom import MODALITIES, Knobs, labels, patients
from fabrica.phantom.exams import examine, exams
from fabrica.phantom.findings import CONDITIONS, FINDINGS, PLACES
from fabrica.phantom.patients import ANCESTRIES, MOST, SITES
from fabrica.types import Absent


@pytest.fixture(scope="module")
def people():
    return patients(1500, 0)


def test_a_longer_list_begins_with_the_shorter():
    assert patients(20, 5)[:7] == patients(7, 5)
    assert patients(7, 5) != patients(7, 6)
    assert pickle.loads(pickle.dumps(patients(2, 0))) == patients(2, 0)


def test_who_they_are(people):
    assert all(18 <= p.age <= 95 and 1 <= p.skin_tone <= 10 for p in people)
    assert {p.ancestry for p in people} == set(ANCESTRIES)
    assert {p.site for p in people} == set(SITES)
    assert len({p.id for p in people}) == len({p.mrn for p in people}) == len(people)
    tone = {a: np.mean([p.skin_tone for p in people if p.ancestry == a]) for a in ANCESTRIES}
    assert tone["african"] > tone["european"] + 4


def test_findings_are_well_formed(people):
    for p in people:
        for modality, found in p.findings.items():
            assert len(found) <= MOST
            assert len({f.label for f in found}) == len(found)
            phrases = {c.phrase for c in PLACES[modality]} | {"on the left", "on the right", ""}
            for f in found:
                spec = FINDINGS[modality][f.label]
                assert f.place in phrases
                assert (f.place == "") == (spec.where == "none")
                assert 0 < f.severity <= 1
                assert spec.size_mm[0] <= f.size_mm <= spec.size_mm[1]
                assert spec.rival not in {g.label for g in found}


@pytest.mark.parametrize("modality", [m for m in MODALITIES if m != "labs"])
def test_every_finding_is_neither_rare_nor_common(people, modality):
    for label in labels(modality):
        share = np.mean([any(f.label == label for f in p.findings[modality]) for p in people])
        assert 0.1 < share < 0.35, label


def test_causes_and_age(people):
    def share(rows):
        return np.mean([any(f.label == "cardiomegaly" for f in p.findings["xray"]) for p in rows])

    ill = [p for p in people if "heart_failure" in p.conditions]
    well = [p for p in people if "heart_failure" not in p.conditions]
    assert share(ill) > share(well) + 0.3
    old = np.mean(["atrial_fibrillation" in p.conditions for p in people if p.age > 70])
    young = np.mean(["atrial_fibrillation" in p.conditions for p in people if p.age < 50])
    assert old > young + 0.1


def test_the_site_confound_moves_prevalence_between_sites():
    def gap(strength):
        rows = patients(1200, 1, knobs=Knobs(site_confound=strength))
        share = {s: np.mean([len(p.findings["fundus"]) for p in rows if p.site == s]) for s in SITES}
        return share[SITES[0]] - share[SITES[-1]]

    assert abs(gap(0)) < 0.2
    assert gap(1.0) > 0.5


def _recorded(n, modality, **knobs):
    return [examine(p, modality, knobs=Knobs(**knobs)) for p in patients(n, 2)]


def test_label_noise_flips_the_record_and_not_the_truth():
    clean, noisy = _recorded(600, "labs"), _recorded(600, "labs", label_noise=0.2)
    flips = [a.labels[k] != b.labels[k] for a, b in zip(clean, noisy, strict=True) for k in CONDITIONS]
    assert np.mean(flips) == pytest.approx(0.2, abs=0.03)
    assert [e.patient for e in clean] == [e.patient for e in noisy]


def test_missing_at_random_and_not():
    def gone(e):
        return np.mean([v is Absent.NOT_DONE for v in e.tests.values()])

    at_random = _recorded(400, "labs", missing=0.3)
    assert np.mean([gone(e) for e in at_random]) == pytest.approx(0.3, abs=0.03)
    ill = [e.patient.severity > 0.3 for e in at_random]
    split = [np.mean([gone(e) for e, i in zip(at_random, ill, strict=True) if i == w]) for w in (True, False)]
    assert abs(split[0] - split[1]) < 0.05
    by_state = _recorded(400, "labs", missing_by_severity=0.8)
    split = [np.mean([gone(e) for e, i in zip(by_state, ill, strict=True) if i == w]) for w in (True, False)]
    assert split[1] > split[0] + 0.2
    assert not any(gone(e) for e in _recorded(50, "labs"))


def test_copies():
    got = list(exams(300, "fundus", 0, knobs=Knobs(duplicates=0.1, near_duplicates=0.15), size=32))
    kinds = [e.copy for e in got]
    assert kinds.count("exact") / 300 == pytest.approx(0.1, abs=0.05)
    assert kinds.count("near") / 300 == pytest.approx(0.15, abs=0.06)
    assert kinds.count("") == 300
    by_key = {e.key: e for e in got}
    assert len(by_key) == len(got)
    for e in got:
        if not e.copy:
            continue
        original = by_key[e.copy_of]
        assert e.patient.id != original.patient.id
        a, b = e.picture.pixels.astype(float), original.picture.pixels.astype(float)
        if e.copy == "exact":
            assert np.array_equal(a, b)
        else:
            assert not np.array_equal(a, b)
            assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.995
            others = [x for x in got if not x.copy and x is not original][:20]
            closest = min(np.abs(b - x.picture.pixels).mean() for x in others)
            assert np.abs(a - b).mean() < closest


def test_identifiers_are_planted_only_on_demand():
    on = [examine(p, "pathology", knobs=Knobs(identifiers=1.0), size=32) for p in patients(5, 0)]
    off = [examine(p, "pathology", size=32) for p in patients(5, 0)]
    assert all(e.patient.name in e.report and e.patient.mrn in e.report for e in on)
    assert not any(e.patient.name in e.report or e.patient.mrn in e.report for e in off)
    burnt = [examine(p, "ultrasound", knobs=Knobs(identifiers=1.0)) for p in patients(3, 0)]
    plain = [examine(p, "ultrasound") for p in patients(3, 0)]
    for a, b in zip(burnt, plain, strict=True):
        changed = a.picture.pixels != b.picture.pixels
        assert changed[:20].sum() > 50  # the upper left corner
        assert not changed[24:].any()


@pytest.mark.parametrize("wrong", [{"missing": -0.1}, {"label_noise": 1.5}, {"scanner_shift": 11}])
def test_wrong_knobs(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Knobs(**wrong)


def test_wrong_names():
    with pytest.raises(UsageError, match="did you mean 'fundus'"):
        next(exams(1, "fundos", 0))
    with pytest.raises(UsageError, match="size"):
        next(exams(1, "fundus", 0, size=8))
    with pytest.raises(UsageError, match="seed"):
        patients(1, -1)
