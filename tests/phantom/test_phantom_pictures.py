"""Pictures and volumes: truth matches pixels, modalities differ, scanners shift."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.phantom import patients
from fabrica.phantom.captions import labels_of
from fabrica.phantom.exams import DRAW, VOLUMES, examine, picture
from fabrica.phantom.findings import FINDINGS, IMAGING, names
from fabrica.phantom.patients import Knobs

SIZE = 96
SPAN = {"ct": 1500.0, "mr": 1000.0}  # of grey values on display
CASES = [(m, label) for m in IMAGING for label in FINDINGS[m]]


def owner(modality, label):
    return next(p for p in patients(80, 9) if any(f.label == label for f in p.findings[modality]))


@pytest.mark.parametrize(("modality", "label"), CASES)
def test_a_finding_changes_its_mask_and_little_else(modality, label):
    p = owner(modality, label)
    found = tuple(f for f in p.findings[modality] if f.label == label)
    with_it, masks = DRAW[modality](p, found, p.rng("x"), SIZE)
    without, _ = DRAW[modality](p, (), p.rng("x"), SIZE)
    mask = masks[0]
    assert mask.dtype == bool
    assert mask.shape == with_it.shape[: mask.ndim]
    share = mask.mean() if modality not in VOLUMES else mask[len(mask) // 2].mean()
    assert 0.001 < share < 0.3
    change = np.abs(with_it - without) / SPAN.get(modality, 1.0)
    change = change.mean(-1) if change.ndim > mask.ndim else change
    inside, outside = change[mask].mean(), change[~mask].mean()
    assert inside > 0.05
    assert inside > 8 * outside  # what is left: halos, shadows, sound behind cysts


@pytest.mark.parametrize("modality", VOLUMES)
def test_volume_findings_cross_the_middle_slice(modality):
    for p in patients(12, 4):
        shot = picture(p, modality, size=64)
        middle = len(shot.pixels) // 2
        assert all(m[middle].any() for m in shot.masks)
        assert shot.pixels.dtype == np.int16


def test_ct_is_in_hounsfield_units():
    p = next(p for p in patients(30, 1) if not p.findings["ct"])
    hu = picture(p, "ct", size=128).pixels[6].astype(float)
    assert hu[:6].mean() == pytest.approx(-1000, abs=15)  # air
    assert np.median(hu[54:74, 26:44]) == pytest.approx(-860, abs=40)  # lung
    assert hu[52:58, 66:72].mean() == pytest.approx(45, abs=15)  # heart
    assert hu[97:101, 62:66].mean() > 350  # spine


@pytest.mark.parametrize("modality", IMAGING)
def test_same_patient_same_picture_other_patient_other_picture(modality):
    a, b = patients(2, 0)
    one, again, other = picture(a, modality, size=64), picture(a, modality, size=64), picture(b, modality, size=64)
    assert np.array_equal(one.pixels, again.pixels)
    assert all(np.array_equal(x, y) for x, y in zip(one.masks, again.masks, strict=True))
    assert not np.array_equal(one.pixels, other.pixels)
    assert len(one.masks) == len(one.findings) == len(a.findings[modality])


def test_modalities_are_told_apart_by_the_nearest_mean_histogram():
    def sketch(p, m):
        x = picture(p, m, size=64).pixels
        x = x[len(x) // 2].astype(float) if m in VOLUMES else x.astype(float)
        x = (x - x.min()) / (np.ptp(x) + 1e-9)
        x = np.stack([x] * 3, -1) if x.ndim == 2 else x
        return np.concatenate([np.histogram(x[..., c], 16, (0, 1))[0] / x[..., c].size for c in range(3)])

    train = {m: np.mean([sketch(p, m) for p in patients(6, 0)], 0) for m in IMAGING}
    hits = [
        min(train, key=lambda k: np.abs(train[k] - s).sum()) == m
        for m in IMAGING
        for s in (sketch(p, m) for p in patients(6, 77))
    ]
    assert np.mean(hits) == 1.0


def test_scanner_shift_moves_pictures_between_scanners():
    def gap(shift):
        p = patients(1, 3)[0]
        shots = [
            picture(replace(p, scanner=s), "xray", knobs=Knobs(scanner_shift=shift), size=64).pixels.astype(float)
            for s in ("beta", "gamma")
        ]
        return np.abs(shots[0] - shots[1]).mean()

    assert gap(0.0) < 0.5
    assert gap(1.0) > 15


def test_the_fundus_is_darker_in_darker_people():
    p = next(p for p in patients(30, 0) if not p.findings["fundus"])
    tones = [DRAW["fundus"](replace(p, skin_tone=t), (), p.rng("x"), 64)[0].mean() for t in (1, 5, 10)]
    assert tones[0] > tones[1] > tones[2]


@pytest.mark.parametrize("modality", [*IMAGING, "ecg"])
def test_reports_read_back_to_the_truth_without_exception(modality):
    for p in patients(120, 21):
        report = examine(p, modality, size=32).report
        said = labels_of(report, names(modality))
        assert {k for k, v in said.items() if v} == {f.label for f in p.findings[modality]}
        assert sum(not v for v in said.values()) == 2
        for f in p.findings[modality]:
            assert f.place in report
