"""DataComp as it is wired (sheet S51, "Not a toy"), and its proof at a tiny size."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica import curate
from fabrica.corpus import Corpus
from fabrica.curate.pools.select import Target
from fabrica.errors import UsageError
from fabrica.phantom.crawl import CLASSES, TARGETS, crawl, names
from fabrica.proofs import Plan, datacomp
from fabrica.systems import load_system
from fabrica.systems.datacomp import RECIPES, of_scale, plan, selector

SYSTEM = load_system("datacomp")
TINY = datacomp.Size(seeds=(100, 101), pool=800, clean=200, test=120, steps=3)


@pytest.mark.parametrize(
    ("scale", "seen", "batch", "lr", "warmup", "patch", "width"),
    [
        ("debug", 128_000, 1024, 1e-4, 500, 32, 768),
        ("small", 12_800_000, 4096, 5e-4, 500, 32, 768),
        ("medium", 128_000_000, 4096, 5e-4, 500, 32, 768),
        ("large", 1_280_000_000, 8192, 5e-4, 500, 16, 768),
        ("xlarge", 12_800_000_000, 90_112, 1e-3, 10_000, 14, 1024),
    ],
)
def test_the_scale_table_is_the_papers(scale, seen, batch, lr, warmup, patch, width):
    """Gadre et al. 2023, Table 1 and the public scale configuration."""
    r = RECIPES[scale]
    assert (r.samples_seen, r.batch, r.lr, r.warmup, r.patch, r.width) == (seen, batch, lr, warmup, patch, width)
    assert r.beta2 == (0.95 if scale == "xlarge" else 0.98)
    settings = of_scale(scale)
    assert 0 <= r.samples_seen - settings.steps * settings.batch < settings.batch


def test_our_scales_and_an_unknown_one():
    assert RECIPES["nano"].samples_seen == 20_000
    assert RECIPES["micro"].samples_seen == 200_000
    with pytest.raises(UsageError, match=r"scale 'medum'; did you mean 'medium'\? Known: debug, large"):
        of_scale("medum")


def test_filters_and_their_errors(tmp_path):
    assert selector(of_scale("small", filter="none")) is None
    assert plan(of_scale("small", filter="none")) == ()
    assert selector(of_scale("small", filter="basic")).columns == (
        "language", "text", "original_width", "original_height"
    )  # fmt: skip
    with pytest.raises(UsageError, match="did you mean 'score'"):
        selector(of_scale("small", filter="scor"))
    with pytest.raises(UsageError, match="exactly one"):
        selector(of_scale("small", filter="score", fraction=0.3, threshold=0.28))
    with pytest.raises(UsageError, match="target images"):
        selector(of_scale("small", filter="image_and_score"))
    target = str(Target(np.ones((3, 4), np.float32), "train").save(tmp_path / "target.npz"))
    both = selector(of_scale("small", filter="image_and_score", target=target))
    with pytest.raises(UsageError, match="no target features"):
        selector(of_scale("small", filter="image", target=str(tmp_path / "none.npz")))
    assert set(both.columns) == {"language", "text", "l14_img", "clip_l14_similarity_score"}


def test_the_plan_makes_the_data_set(tmp_path):
    pool = Corpus.create(tmp_path / "pool")
    pool.append(r.updated(labels={"clip": float(i)}) for i, r in enumerate(crawl(50, 0).records()))
    steps = SYSTEM.plan(of_scale("nano", filter="score", fraction=0.2, score="clip"))
    report = curate.run(steps, pool, tmp_path / "out")
    assert report.kept == 11  # rank floor(0.2 x 50) = 10, from zero
    assert dict(report.dropped) == {"selected": {"below_top_fraction": 39}}


def test_the_paper_scales_can_be_built_small():
    """The ViT of a recipe, two layers deep instead of twelve."""
    import torch

    recipe = replace(RECIPES["micro"], depth=1, text_depth=1, width=48, text_width=32, heads=3, vocabulary=200)
    bundle = SYSTEM.build(replace(of_scale("micro"), recipe=recipe), list(crawl(20, 0).records()))
    assert bundle.card["scale"] == "micro"
    assert bundle.card["recipe"] != of_scale("micro").digest
    _, rows, present = bundle.embed(list(crawl(3, 1).records()), "image")
    assert rows.shape == (3, 128)
    assert present.all()
    assert torch.is_tensor(next(bundle.model.parameters()))


def test_the_crawl_has_the_shares_that_it_says():
    made = crawl(4000, 7, mismatch=0.7, off_target=0.6)
    again = crawl(4000, 7, mismatch=0.7, off_target=0.6)
    assert made.images.tobytes() == again.images.tobytes()
    assert made.texts == again.texts
    assert abs((made.shows >= TARGETS).mean() - 0.6) < 0.03
    assert 0.3 <= (made.shows == made.says).mean() < 0.36
    assert set(made.shows) == set(range(CLASSES))
    for k, text in zip(made.says[:50], made.texts, strict=False):
        assert sum(w in names()[k] for w in text.split()) == 1


# ---------------------------------------------------------------- the proof


def judged(values, seen=51_200):
    """Arms of made-up accuracies on 200 images."""
    out = []
    for v in values:
        right = np.zeros(200, bool)
        right[: round(200 * v)] = True
        out.append(datacomp.Judged(right, seen, 10))
    return out


def arms(**changes):
    made = {
        datacomp.NONE: 0.5, datacomp.RANDOM: 0.3, datacomp.TOP30: 0.7, datacomp.TOP10: 0.6, datacomp.TOP2: 0.2,
        datacomp.ORACLE: 0.9, datacomp.SCORER: 0.6, datacomp.OFF_SCORE: 0.5, datacomp.OFF_AND: 0.7,
        datacomp.OFF_SIZE: 0.4, datacomp.CLEAN_NONE: 0.9, datacomp.CLEAN_TOP: 0.8, datacomp.DIGITS_NONE: 0.5,
        datacomp.DIGITS_RANDOM: 0.4, datacomp.DIGITS_TOP: 0.8,
    } | {getattr(datacomp, k): v for k, v in changes.items()}  # fmt: skip
    return {k: judged([v, v]) for k, v in made.items()}


def test_the_bars_are_read():
    assert datacomp._proof(TINY, arms()).verdict == "shown"
    for name, value in (("NONE", 0.67), ("RANDOM", 0.6), ("TOP2", 0.55), ("OFF_SCORE", 0.69), ("DIGITS_NONE", 0.79),
                        ("CLEAN_TOP", 0.93)):  # fmt: skip
        assert datacomp._proof(TINY, arms(**{name: value})).verdict == "not shown", name
    more = arms()
    more[datacomp.TOP10] = judged([0.6, 0.6], seen=51_201)
    assert datacomp._proof(TINY, more).verdict == "not shown"


def test_the_proof_runs_small_and_a_seed_repeats():
    job = datacomp.Part("off_target", 100, TINY, 1100)
    once, twice = (datacomp.part(job, Plan()) for _ in range(2))
    assert set(once) == {datacomp.OFF_SCORE, datacomp.OFF_AND, datacomp.OFF_SIZE}
    for arm in once:
        np.testing.assert_array_equal(once[arm].right, twice[arm].right)
        assert once[arm].seen == 3 * 128
    assert once[datacomp.OFF_AND].pairs < once[datacomp.OFF_SCORE].pairs


def test_every_pool_gives_its_arms_and_all_see_as_many_samples():
    made = {k: v for pool in ("crawled", "digits") for k, v in datacomp.part(datacomp.Part(pool, 100, TINY, 1100),
                                                                            Plan()).items()}  # fmt: skip
    assert {j.seen for k, j in made.items() if k != datacomp.TOP2 and j.pairs >= 128} == {3 * 128}
    assert made[datacomp.RANDOM].pairs == made[datacomp.TOP30].pairs == 241
    assert made[datacomp.NONE].pairs == 800
    assert made[datacomp.DIGITS_RANDOM].pairs == made[datacomp.DIGITS_TOP].pairs
