"""Synthetic ECGs and laboratory values against their truth."""

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.phantom import Knobs, patients
from fabrica.phantom.signals import LABS, LEADS, ecg, labs
from fabrica.types import Absent


@pytest.fixture(scope="module")
def people():
    return patients(250, 0)


def lead(e, name):
    return e.values[LEADS.index(name)].astype(float)


def test_limb_leads_obey_einthoven_and_goldberger(people):
    for p in people[:20]:
        e = ecg(p)
        i, ii = lead(e, "I"), lead(e, "II")
        for name, want in (("III", ii - i), ("aVR", -(i + ii) / 2), ("aVL", i - ii / 2), ("aVF", ii - i / 2)):
            assert np.abs(lead(e, name) - want).max() < 1.1e-3  # whole microvolts in float32
        assert e.values.shape == (12, 5000)
        assert e.values.dtype == np.float32
        assert np.abs(e.values * 1000 - np.rint(e.values * 1000)).max() < 1e-3
        assert 0.3 < np.abs(e.values).max() < 5  # mV


def test_100_hz_is_every_fifth_sample(people):
    assert np.array_equal(ecg(people[0], rate=100).values, ecg(people[0]).values[:, ::5])
    assert ecg(people[0], rate=250, seconds=4).values.shape == (12, 1000)


def test_peaks_and_rate(people):
    hits = []
    for p in people[:80]:
        e = ecg(p)
        assert e.bpm == pytest.approx(60 / np.diff(e.peaks).mean())
        if {"premature_beats", "bundle_branch_block"} & set(e.labels):
            continue
        x = np.abs(lead(e, "II")[8:] - lead(e, "II")[:-8])  # the steepest slopes, over 16 ms
        loud = (np.flatnonzero(x > 0.5 * np.percentile(x, 99.8)) + 4) / e.rate
        hits += [np.abs(loud - t).min() < 0.03 for t in e.peaks]
        assert all(np.abs(e.peaks - t).min() < 0.08 for t in loud if 0.2 < t < 9.8)
    assert np.mean(hits) > 0.98


def test_labels_follow_the_signal(people):
    all_ = [ecg(p) for p in people]
    for e in all_:
        assert ("tachycardia" in e.labels) == (e.bpm > 100)
        assert ("bradycardia" in e.labels) == (e.bpm < 60)

    def spread(e):
        gaps = np.diff(e.peaks)
        return gaps.std() / gaps.mean()

    fibrillation = [spread(e) for e in all_ if "atrial_fibrillation" in e.labels]
    regular = [spread(e) for e in all_ if not {"atrial_fibrillation", "premature_beats"} & set(e.labels)]
    assert len(fibrillation) > 20
    assert min(fibrillation) > 0.08 > max(regular)


def test_st_elevation_and_wide_complexes_show(people):
    def window(e, name, low, high):
        x = lead(e, name)
        base = np.median(x)
        at = [x[int((t + low) * 500) : int((t + high) * 500)].mean() - base for t in e.peaks[1:-1]]
        return np.mean(at)

    def plain(p, *labels):
        return {f.label for f in p.findings["ecg"]} == set(labels)

    st = [window(ecg(p), "V2", 0.1, 0.16) for p in people if plain(p, "st_elevation")]
    none = [window(ecg(p), "V2", 0.1, 0.16) for p in people if plain(p)]
    assert min(st) > 0.1 > np.mean(none)
    wide = [window(ecg(p), "V5", -0.06, 0.05) for p in people if plain(p, "bundle_branch_block")]
    thin = [window(ecg(p), "V5", -0.06, 0.05) for p in people if plain(p)]
    assert np.mean(wide) > 1.5 * np.mean(thin)


@pytest.mark.parametrize(("rate", "seconds"), [(128, 10), (10, 10), (500, 0.1), (500, 1e6)])
def test_wrong_rate_or_length(people, rate, seconds):
    with pytest.raises(UsageError, match="divides"):
        ecg(people[0], rate=rate, seconds=seconds)


def test_labs_of_the_healthy_lie_in_the_reference_range(people):
    well = [labs(p) for p in patients(900, 3) if not p.conditions]
    assert len(well) > 100
    for name, lab in LABS.items():
        inside = np.mean([lab.low <= row[name] <= lab.high for row in well])
        assert 0.9 < inside < 0.99, name  # the range spans the central 95 %


@pytest.mark.parametrize(
    ("test", "condition", "way"),
    [("haemoglobin", "anaemia", -1), ("creatinine", "renal_failure", 1), ("hba1c", "diabetes", 1),
     ("crp", "infection", 1), ("bnp", "heart_failure", 1), ("potassium", "renal_failure", 1)],
)  # fmt: skip
def test_conditions_move_their_tests(people, test, condition, way):
    ill = [labs(p)[test] for p in people if p.conditions.get(condition, 0) > 0.5]
    well = [labs(p)[test] for p in people if condition not in p.conditions]
    assert way * (np.median(ill) - np.median(well)) > 0
    edge = LABS[test].high if way > 0 else LABS[test].low
    assert np.mean([way * (v - edge) > 0 for v in ill]) > 0.4


def test_absent_tests_are_absent(people):
    assert all(v is Absent.NOT_DONE for v in labs(people[0], knobs=Knobs(missing=1.0)).values())
    assert not any(isinstance(v, Absent) for v in labs(people[0]).values())
