"""The ports' defaults: hashed embedders, the growing segmenter, the logistic scorer."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabrica.encode.grow import Grow, otsu
from fabrica.encode.hashed import ColourTexture, HashedText
from fabrica.encode.logistic import LogisticScorer
from fabrica.errors import Refused, UsageError
from fabrica.types import Absent, Embedder, Item, Origin, Record, Region, Scorer, Segmenter

ORIGIN = Origin("made", "a", "", "CC0-1.0")


def text(value: str) -> Item:
    return Item("text", value, ORIGIN)


def image(value: np.ndarray) -> Item:
    return Item("image", value, ORIGIN)


# ------------------------------------------------------------ texts


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_rows_are_unit_and_do_not_depend_on_their_neighbours(texts: list[str]) -> None:
    rows = HashedText(128)([text(t) for t in texts])
    assert rows.shape == (len(texts), 128)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    for row, t in zip(rows, texts, strict=True):
        assert HashedText(128)([text(t)])[0].tobytes() == row.tobytes()


def test_near_texts_are_near() -> None:
    report = "The heart is enlarged. There is a small left pleural effusion. No pneumothorax."
    texts = [report, report.upper() + "  ", report.replace("small", "tiny"), "Sinus rhythm, normal axis, no ST change."]
    near = HashedText()([text(t) for t in texts]) @ HashedText()([text(report)]).T
    assert near[1, 0] == pytest.approx(1)
    assert near[2, 0] > 0.8
    assert near[3, 0] < 0.25


def test_a_word_counts_the_same_wherever_it_stands() -> None:
    """Codes of words are free of position and of the text's length: the shared word brings the cosine up."""
    one = HashedText()([text("zq"), text("xxxxxxxx yyyyyyy zq"), text("xxxxxxxx yyyyyyy qz")])
    assert one[0] @ one[1] > one[0] @ one[2] + 0.1


def test_the_hash_is_the_same_in_every_process_and_for_ever() -> None:
    code = (
        "import hashlib; from fabrica.encode.hashed import HashedText; from fabrica.types import Item, Origin;"
        "r = HashedText(64)([Item('text', 'No pleural effusion.', Origin('a', 'b', '', ''))])[0];"
        "print((r * 1000).round().astype(int).tolist()[:8])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = HashedText(64)([text("No pleural effusion.")])[0]
    assert out.strip() == str((here * 1000).round().astype(int).tolist()[:8])
    assert out.strip() == "[0, 0, 0, 147, 0, 0, -147, 0]"


@pytest.mark.parametrize("embed", [HashedText(), ColourTexture()])
def test_the_wrong_kind_is_an_error(embed: Embedder) -> None:
    assert isinstance(embed, Embedder)
    for item in (Item("table", np.zeros(3), ORIGIN), Item("text", Absent.NOT_DONE, ORIGIN)):
        with pytest.raises(UsageError, match="reads"):
            embed([item])
    assert embed([]).shape[0] == 0


# ------------------------------------------------------------ images


def test_colour_and_texture_tell_pictures_apart() -> None:
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[:96, :96]
    kinds = {
        "stripes": lambda: 127 + 100 * np.sin(xs / rng.uniform(2.0, 3.0) + rng.uniform(0, 6)),
        "bars": lambda: 127 + 100 * np.sin(ys / rng.uniform(2.0, 3.0) + rng.uniform(0, 6)),
        "noise": lambda: rng.uniform(0, 255, (96, 96)),
        "blob": lambda: 255 * np.exp(-((ys - rng.uniform(40, 56)) ** 2 + (xs - 48) ** 2) / 400),
    }
    names = [n for n in kinds for _ in range(8)]
    rows = ColourTexture()([image(kinds[n]().clip(0, 255).astype(np.uint8)) for n in names])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    near = rows @ rows.T - 2 * np.eye(len(rows))
    assert [names[k] for k in near.argmax(1)] == names


@pytest.mark.parametrize(
    "value",
    [np.zeros((4, 4), np.uint8), np.full((300, 2), 7, np.int16), np.ones((8, 8, 3), np.uint8), np.ones((8, 8), bool),
     np.random.default_rng(0).normal(size=(33, 65)).astype(np.float32)],
    ids=lambda v: f"{v.dtype}{v.shape}",
)  # fmt: skip
def test_any_image_gives_a_unit_row(value: np.ndarray) -> None:
    assert np.linalg.norm(ColourTexture()([image(value)])[0]) == pytest.approx(1, abs=1e-5)


# ------------------------------------------------------------ segmenter


def disc(side: int, y: float, x: float, r: float) -> np.ndarray:
    ys, xs = np.mgrid[:side, :side]
    return (ys - y) ** 2 + (xs - x) ** 2 <= r * r


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def prompt(shape: str, data: list[float], said: str = "mass") -> Region:
    return Region("image", shape, np.array(data, np.float64), said, ORIGIN, index=1, text=said)  # type: ignore[arg-type]


@given(st.integers(0, 10**6), st.sampled_from((1, -1)), st.sampled_from(("box", "point")))
@settings(max_examples=60, deadline=None)
def test_noisy_discs_bright_or_dark_are_found(seed: int, sign: int, shape: str) -> None:
    rng = np.random.default_rng(seed)
    y, x, r = rng.uniform(30, 66), rng.uniform(30, 66), rng.uniform(8, 20)
    truth = disc(96, y, x, r)
    pixels = 128 + sign * 80 * truth + rng.normal(0, 8, (96, 96))
    data = [x - r - 4, y - r - 4, x + r + 4, y + r + 4] if shape == "box" else [x, y]
    (found,) = Grow(reach=0.3)(image(pixels.clip(0, 255).astype(np.uint8)), [prompt(shape, data)])
    assert dice(found.data, truth) > 0.9
    assert (found.shape, found.label, found.text, found.index, found.role) == ("mask", "mass", "mass", 1, "image")
    assert found.origin.by == "model"
    assert found.origin.steps[-1].startswith("segment:grow@1")


def test_one_mask_a_prompt_that_was_found() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[disc(64, 20, 20, 8)] = 200
    segment = Grow()
    assert isinstance(segment, Segmenter)
    prompts = [
        prompt("box", [8, 8, 32, 32], "a"), prompt("box", [40, 40, 60, 60], "flat"), prompt("point", [20, 20], "b"),
        prompt("point", [999, 5], "outside"), prompt("box", [5, 5, 5, 9], "thin"), prompt("box", [], "unknown"),
    ]  # fmt: skip
    assert [r.label for r in segment(image(pixels), prompts)] == ["a", "b"]


def test_a_bridge_of_one_pixel_joins_nothing_and_holes_are_filled() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[10:24, 10:24] = 200
    pixels[10:24, 40:54] = 200
    pixels[17, 24:40] = 200
    pixels[16:18, 16:18] = 0
    (found,) = Grow()(image(pixels), [prompt("point", [12, 12])])
    wanted = np.zeros((64, 64), bool)
    wanted[10:24, 10:24] = True
    assert dice(found.data, wanted) > 0.99


def test_a_volume_by_window_and_by_point() -> None:
    values = np.full((24, 24, 24), 40.0, np.float32)
    values[4:12, 4:12, 4:12] = -850
    values[16:20, 16:20, 16:20] = -850
    values[0, 0, 0] = -850
    volume = Item("volume", values, ORIGIN, unit="HU", affine=np.eye(4))
    segment = Grow(windows={"lung": (-1000, -500)})
    lung, part = segment(volume, [prompt("box", [], "Lung"), prompt("point", [6, 6, 6], "left")])
    assert int(lung.data.sum()) == 8**3 + 4**3
    assert int(part.data.sum()) == 8**3
    with pytest.raises(UsageError, match="3 axes"):
        segment(volume, [prompt("box", [1, 1, 9, 9])])
    with pytest.raises(UsageError, match="NaN"):
        segment(image(np.full((8, 8), np.nan)), [])
    with pytest.raises(UsageError, match="reads images"):
        segment(text("a"), [])


def test_otsu_parts_two_normals_where_they_cross() -> None:
    rng = np.random.default_rng(0)
    cut, eta = otsu(np.concatenate([rng.normal(0, 1, 5000), rng.normal(10, 1, 5000)]))
    assert 4 < cut < 6
    assert eta > 0.9
    assert otsu(np.ones(5)) == (1.0, 0.0)


# ------------------------------------------------------------ scorer


def labelled(n: int, seed: int) -> list[Record]:
    rng = np.random.default_rng(seed)
    out = []
    for k in range(n):
        sick = k % 2
        pixels = rng.normal(100, 20, (48, 48)) + 60 * sick * disc(48, rng.uniform(18, 30), rng.uniform(18, 30), 9)
        out.append(
            Record(f"r{k}", f"p{k}", items={"image": (image(pixels.clip(0, 255).astype(np.uint8)),)},
                   labels={"mass": float(sick), "other": Absent.NOT_DONE})
        )  # fmt: skip
    return out


def test_the_scorer_agrees_with_scikit_learn_and_ranks_the_sick_first() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    from fabrica.evaluate.metrics import auc

    train, test = labelled(60, 0), labelled(60, 1)
    embed = ColourTexture()
    scorer = LogisticScorer.fit(train, ["mass"], embed=embed, l2=0.1)
    assert isinstance(scorer, Scorer)
    x = embed([r.first("image") for r in train])  # type: ignore[misc]
    reference = linear.LogisticRegression(C=10, tol=1e-8, max_iter=5000).fit(x, [r.labels["mass"] for r in train])
    np.testing.assert_allclose(scorer.weights[0, :-1], reference.coef_[0], atol=2e-2)
    np.testing.assert_allclose(
        [scorer(r)["mass"] for r in test],
        reference.predict_proba(embed([r.first("image") for r in test]))[:, 1],  # type: ignore[misc]
        atol=2e-3,
    )
    assert auc(np.array([r.labels["mass"] for r in test]), np.array([scorer(r)["mass"] for r in test])) > 0.95


def test_it_is_saved_whole_and_knows_its_embedder(tmp_path: Path) -> None:
    scorer = LogisticScorer.fit(labelled(20, 0), ["mass"], embed=ColourTexture())
    scorer.save(tmp_path / "s.safetensors")
    again = LogisticScorer.load(tmp_path / "s.safetensors", embed=ColourTexture())
    record = labelled(1, 5)[0]
    assert again.name == scorer.name
    assert again(record) == scorer(record)
    assert again(record.without("image")) == {}
    with pytest.raises(Refused, match="scorer_embedder"):
        LogisticScorer.load(tmp_path / "s.safetensors", embed=HashedText())
    (tmp_path / "bad").write_bytes(b"junk" * 9)
    with pytest.raises(Refused, match="scorer_bad"):
        LogisticScorer.load(tmp_path / "bad", embed=ColourTexture())


def test_what_teaches_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="one class"):
        LogisticScorer.fit(labelled(6, 0), ["other"], embed=ColourTexture())
    with pytest.raises(UsageError, match="no record"):
        LogisticScorer.fit(labelled(6, 0), ["mass"], embed=ColourTexture(), roles=("ct",))
