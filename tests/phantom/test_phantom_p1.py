"""Phantom P1 against its definition: counts, places, sizes, noise, masks, texts, speed."""

import hashlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.errors import UsageError
from fabrica.phantom import LABELS, p1
from fabrica.phantom.shapes import SHAPES, STYLES, coverage, distance
from fabrica.types import Absent


@pytest.fixture(scope="module")
def batch():
    return p1(3000, 0)


def digest(b):
    return hashlib.sha256(b.images.tobytes() + b.packed.tobytes() + "|".join(b.reports).encode()).hexdigest()


@pytest.mark.parametrize("style", STYLES)
def test_same_seed_same_bytes_other_seed_other_bytes(style):
    one = digest(p1(20, 3, style=style))
    assert one == digest(p1(20, 3, style=style))
    assert one != digest(p1(20, 4, style=style))


def test_shapes_and_types(batch):
    assert batch.images.shape == (3000, 64, 64)
    assert batch.images.dtype == np.float32
    assert batch.labels.shape == (3000, 6)
    assert batch.masks.shape == (3000, 6, 64, 64)
    assert len(batch) == len(batch.reports) == len(batch.findings) == 3000
    assert p1(2, 0, style="stain").images.shape == (2, 64, 64, 3)


def test_counts_are_uniform_from_0_to_3(batch):
    counts = np.bincount([len(f) for f in batch.findings], minlength=4)
    assert len(counts) == 4
    # four equally likely counts: 750 each, standard deviation sqrt(3000 * 1/4 * 3/4) = 23.7
    assert np.abs(counts - 750).max() < 4 * 23.7


def test_labels_cells_jitter_radius_contrast(batch):
    assert np.allclose(batch.labels.mean(0), 0.25, atol=0.04)  # 1.5 findings on average over six labels
    flat = [f for row in batch.findings for f in row]
    cells = {(f.side, f.zone) for f in flat}
    assert len(cells) == 6
    for row in batch.findings:
        assert len({f.label for f in row}) == len(row)
        assert len({(f.side, f.zone) for f in row}) == len(row)
    x = np.array([f.x - {"left": 19, "right": 45}[f.side] for f in flat])
    y = np.array([f.y - {"upper": 14, "middle": 32, "lower": 50}[f.zone] for f in flat])
    r, c = np.array([f.radius for f in flat]), np.array([f.contrast for f in flat])
    for values, low, high in ((x, -3, 3), (y, -3, 3), (r, 4, 7), (c, 0.5, 0.9)):
        assert values.min() >= low - 1e-5
        assert values.max() <= high + 1e-5
        assert abs(values.mean() - (low + high) / 2) < 0.02 * (high - low)
        assert abs(values.std() - (high - low) / 12**0.5) < 0.02 * (high - low)  # uniform


def test_noise_is_015(batch):
    empty = batch.images[[len(f) == 0 for f in batch.findings]]
    inside = empty[:, 24:40, 14:24]  # a patch within one lung: a plane and noise
    y, x = np.mgrid[:16, :10]
    design = np.stack([np.ones(160), y.ravel(), x.ravel()], 1)
    flat = inside.reshape(len(empty), -1).T
    residual = flat - design @ np.linalg.lstsq(design, flat, rcond=None)[0]
    assert residual.std() == pytest.approx(0.15 * (157 / 160) ** 0.5, rel=0.01)


def test_lungs_are_dark(batch):
    mean = batch.images.mean(0)
    assert mean[32, 19] < mean[32, 32] - 0.2
    assert mean[32, 45] < mean[32, 32] - 0.2
    assert mean[32 - 28, 19] > mean[32, 19] + 0.2  # above the ellipse of semi-axis 26


def test_masks_are_labels_and_bright(batch):
    masks = batch.masks[:500]
    assert np.array_equal(masks.any((2, 3)), batch.labels[:500] > 0)
    ratio = []
    for i, row in enumerate(batch.findings[:500]):
        for f in row:
            mask = masks[i, LABELS.index(f.label)]
            y, x = np.nonzero(mask)
            assert abs(x.mean() - f.x) < 1
            assert abs(y.mean() - f.y) < 2  # a wedge's centre of mass lies below its centre
            box = batch.images[i, max(0, y.min() - 2) : y.max() + 3, max(0, x.min() - 2) : x.max() + 3]
            ring = ~masks[i].any(0)[max(0, y.min() - 2) : y.max() + 3, max(0, x.min() - 2) : x.max() + 3]
            ratio.append((batch.images[i][mask].mean() - box[ring].mean()) / f.contrast)
    assert np.mean(ratio) == pytest.approx(0.85, abs=0.15)  # gain 0.8 to 1.2, half-covered edges in the ring
    assert np.min(ratio) > 0.2


@pytest.mark.parametrize("style", STYLES)
def test_findings_show_in_every_style(style):
    b = p1(120, 5, style=style, text="none", least=1, most=1)
    images = b.images if b.images.ndim == 3 else b.images.mean(-1)
    mean = np.median(images, 0)  # the same place without a finding
    gap = [abs(float((images[i] - mean)[b.packed[i] > 0].mean())) for i in range(len(b))]
    noise = [abs(float((images[i] - mean)[b.packed[(i + 1) % len(b)] > 0].mean())) for i in range(len(b))]
    assert np.median(gap) > 2.5 * np.median(noise)


def test_styles_look_different():
    means = [np.histogram(p1(40, 1, style=s).images, 40, (-0.5, 1.5), density=True)[0] for s in STYLES]
    for i in range(len(means)):
        for j in range(i):
            assert np.abs(means[i] - means[j]).sum() * 0.05 > 0.3


def test_least_and_most():
    b = p1(50, 0, least=1, most=1)
    assert {len(f) for f in b.findings} == {1}
    assert set(b.labels.sum(1)) == {1.0}


def test_records():
    got = list(p1(4, 0, style="fan", text="article").records(regions=True))
    assert len({r.id for r in got}) == len({r.subject for r in got}) == 4
    assert got[0].groups["modality"] == "ultrasound"
    assert got[0].first("caption").origin.by == "synthetic"
    for r in got:
        assert {g.label for g in r.regions} == {k for k, v in r.labels.items() if v == 1.0}
        assert all(g.data.shape == (64, 64) and g.data.any() for g in r.regions)
    silent = next(p1(1, 0, text="none").records())
    assert silent.first("report") is None
    assert silent.items["report"][0].value is Absent.NOT_DONE


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [({"style": "transmision"}, "transmission"), ({"text": "reports"}, "report"), ({"most": 5}, "most=5"),
     ({"least": 3, "most": 2}, "least=3")],
)  # fmt: skip
def test_wrong_arguments(kwargs, said):
    with pytest.raises(UsageError, match=said):
        p1(2, 0, **kwargs)
    with pytest.raises(UsageError, match="n=0"):
        p1(0, 0)


@given(st.sampled_from(SHAPES), st.floats(4, 7), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_coverage_lies_between_0_and_1_and_follows_the_distance(shape, r, cx, cy):
    y, x = (a.astype(np.float32) for a in np.mgrid[-12:13, -12:13])
    c = coverage(shape, y - cy, x - cx, np.float32(r))
    d = distance(shape, y - cy, x - cx, np.float32(r))
    assert c.min() >= 0
    assert c.max() == 1 or shape == "ring"
    assert (c[d < -0.5] == 1).all()
    assert (c[d > 0.5] == 0).all()
    assert c[np.hypot(x - cx, y - cy) > 1.25 * r + 1].max() == 0  # stays within its patch (the wedge's corners: 1.21 r)


def test_disc_and_square_areas():
    y, x = (a.astype(np.float32) for a in np.mgrid[-12:13, -12:13])
    assert coverage("disc", y, x, np.float32(6)).sum() == pytest.approx(np.pi * 36, rel=0.01)
    assert coverage("square", y, x, np.float32(6)).sum() == pytest.approx((2 * 0.85 * 6) ** 2, rel=0.02)


def test_three_thousand_images_in_under_15_seconds_of_one_core():
    start = time.process_time()
    p1(3000, 7)
    assert time.process_time() - start < 15  # measured 0.3 s: 10,000 images a second with their reports
