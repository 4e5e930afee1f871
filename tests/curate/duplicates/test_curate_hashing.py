"""Fingerprints: what must not change them does not, what must does; MinHash estimates Jaccard, pHash is its peers'."""

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from fabrica.curate.duplicates import hashing, near

TEXTS = st.text(max_size=80)


# ---------------------------------------------------------------- text


@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = hashing.normalise_text(text)
    assert hashing.normalise_text(once) == once


@given(st.text(st.characters(codec="ascii"), max_size=80))
def test_the_fast_path_equals_the_slow_one(text: str) -> None:
    slow = hashing.normalise_text(text + " é").removesuffix("é").strip()
    assert hashing.normalise_text(text) == slow


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Ｎｏ ｅｆｆｕｓｉｏｎ", "no effusion"),
        ("STRASSE Straße", "strasse strasse"),
        ("ﬁbrosis", "fibrosis"),
        ("肺部未见异常。", "肺 部 未 见 异 常"),
        ("2.5 cm", "2 5 cm"),
        ("", ""),
        ("...", ""),
    ],
)
def test_normalising_known_texts(text: str, wanted: str) -> None:
    assert hashing.normalise_text(text) == wanted


def naive_shingles(text: str, words: int = 5) -> set[tuple[str, ...]]:
    parts = text.split()
    return {tuple(parts[i : i + words]) for i in range(max(len(parts) - words + 1, 1))} if parts else set()


@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab", "ß", "c1"]), max_size=9).map(" ".join), max_size=8))
def test_shingles_equal_the_plain_definition(texts: list[str]) -> None:
    values, offsets = hashing.shingles(texts)
    seen: dict[int, tuple[str, ...]] = {}
    for i, text in enumerate(texts):
        mine = values[offsets[i] : offsets[i + 1]].tolist()
        parts = text.split()
        plain = [tuple(parts[k : k + 5]) for k in range(max(len(parts) - 4, 1))] if parts else []
        assert len(mine) == len(plain)
        for hash_, shingle in zip(mine, plain, strict=True):
            assert seen.setdefault(hash_, shingle) == shingle
    assert len(seen) == len({s for text in texts for s in naive_shingles(text)})


def test_minhash_estimates_jaccard_without_bias_and_with_its_variance() -> None:
    rng = np.random.default_rng(0)
    errors, expected = [], []
    for share in (0.2, 0.5, 0.8):
        for _ in range(150):
            common = rng.integers(0, 2**63, round(200 * share)).astype(np.uint64)
            own = rng.integers(0, 2**63, (2, (200 - len(common)) // 2)).astype(np.uint64)
            sets = [np.concatenate([common, own[k]]) for k in (0, 1)]
            jaccard = len(common) / (len(common) + own.size)
            values, offsets = np.concatenate(sets), np.array([0, len(sets[0]), len(sets[0]) + len(sets[1])])
            a, b = hashing.minhash(values, offsets)
            errors.append((a == b).mean() - jaccard)
            expected.append(jaccard * (1 - jaccard) / hashing.PERMUTATIONS)
    assert abs(np.mean(errors)) < 4 * np.sqrt(np.mean(expected) / len(errors))
    assert 0.8 < np.mean(np.square(errors)) / np.mean(expected) < 1.25


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=5), max_size=6))
def test_minhash_of_many_equals_minhash_of_each(sets: list[list[int]]) -> None:
    values = np.array([v for s in sets for v in s], np.uint64)
    offsets = np.cumsum([0, *map(len, sets)])
    together = hashing.minhash(values, offsets)
    assert together.shape == (len(sets), hashing.PERMUTATIONS)
    for i, of in enumerate(sets):
        alone = hashing.minhash(np.array(of[::-1] * 2, np.uint64), np.array([0, 2 * len(of)]))[0]
        assert np.array_equal(together[i], alone)


# ---------------------------------------------------------------- pixels

SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)))


@given(SMALL)
def test_pixel_digest_ignores_how_values_are_stored(image: np.ndarray) -> None:
    digest = hashing.pixel_sha(image)
    for dtype in (np.uint16, np.int16, np.int64, np.float32, np.float64, ">u2"):
        assert hashing.pixel_sha(image.astype(dtype)) == digest
    assert hashing.pixel_sha(np.stack([image] * 3, -1)) == digest
    assert hashing.pixel_sha(image[..., None]) == digest
    assert hashing.pixel_sha(np.asfortranarray(image)) == digest


@given(SMALL, st.integers(0, 35))
def test_pixel_digest_changes_with_any_pixel_and_with_shape(image: np.ndarray, at: int) -> None:
    other = image.copy()
    other.flat[at % image.size] ^= 1
    assert hashing.pixel_sha(other) != hashing.pixel_sha(image)
    if image.shape[0] != image.shape[1]:
        assert hashing.pixel_sha(image.reshape(image.shape[::-1])) != hashing.pixel_sha(image)


def test_pixel_digest_of_negative_and_fractional_values() -> None:
    hu = np.array([[-1000, 40], [3000, 0]], np.int16)
    assert hashing.pixel_sha(hu) == hashing.pixel_sha(hu.astype(np.float32))
    assert hashing.pixel_sha(hu) != hashing.pixel_sha(hu + np.float32(0.5))
    assert hashing.pixel_sha(np.array([[np.nan, 1.0]])) == hashing.pixel_sha(np.array([[np.nan, 1.0]], np.float32))
    wanted = hashlib.sha256(b"|u1(2, 2)" + bytes([1, 2, 3, 4])).hexdigest()
    assert hashing.pixel_sha(np.array([[1, 2], [3, 4]])) == wanted


def scene(seed: int, side: int = 224) -> np.ndarray:
    """A smooth random picture with edges and grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 9), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    fine = Image.fromarray(rng.integers(0, 120, (45, 45), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse, np.float32) * 0.6 + np.asarray(fine, np.float32), 0, 255).astype(np.uint8)


def test_perceptual_hash_is_the_dct_of_the_32_pixel_average() -> None:
    from scipy.fft import dctn

    thumbs = np.stack([hashing.thumbnail(scene(i)) for i in range(8)])
    means = thumbs.reshape(8, 32, 2, 32, 2).astype(np.float64).mean((2, 4))
    low = dctn(means, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(8, 64)
    bits = low > np.median(low, axis=1, keepdims=True)
    wanted = [int("".join("1" if b else "0" for b in row), 2) for row in bits]
    assert [int(h) for h in hashing.perceptual(thumbs)] == wanted


def test_perceptual_hash_agrees_with_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash")
    for seed in range(10):
        image = scene(seed)
        ours = int(hashing.perceptual(hashing.thumbnail(image)[None])[0])
        theirs = int(str(imagehash.phash(Image.fromarray(image))), 16)
        assert (ours ^ theirs).bit_count() <= 6, seed  # another resampling filter, the same hash


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


CHANGES = {
    "jpeg 40": lambda a: jpeg(a, 40),
    "half size": lambda a: np.asarray(Image.fromarray(a).resize((112, 112), Image.Resampling.BOX)),
    "twice the size": lambda a: np.asarray(Image.fromarray(a).resize((448, 448), Image.Resampling.BICUBIC)),
    "brighter": lambda a: np.clip(a * 1.15, 0, 255).astype(np.uint8),
    "16 bits": lambda a: a.astype(np.uint16) * 16 + 100,
    "hounsfield": lambda a: a.astype(np.float32) * 4 - 1000,
    "colour": lambda a: np.stack([a, a, a], -1),
    "grain": lambda a: np.clip(a + np.random.default_rng(0).normal(0, 4, a.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else_is(change: str) -> None:
    images = [scene(i) for i in range(40)]
    thumbs = np.stack([hashing.thumbnail(a) for a in images] + [hashing.thumbnail(CHANGES[change](a)) for a in images])
    pairs = near.near_pictures(thumbs)
    assert {tuple(p) for p in pairs.tolist()} == {(i, i + 40) for i in range(40)}


def test_a_shared_frame_does_not_make_two_pictures_one() -> None:
    """The disc of a fundus camera: the same strong edge around every picture fools a plain correlation."""
    y, x = np.mgrid[:224, :224]
    disc = (x - 112) ** 2 + (y - 112) ** 2 < 105**2
    pictures = [np.where(disc, 120 + (scene(i) - 128.0) * 0.15, 0).astype(np.uint8) for i in range(12)]
    thumbs = np.stack([hashing.thumbnail(p) for p in pictures])
    flat = thumbs.reshape(12, -1).astype(np.float64)
    assert np.corrcoef(flat)[np.triu_indices(12, 1)].max() > 0.95
    every = np.argwhere(np.triu(np.ones((12, 12)), 1))
    assert near.verified(thumbs, thumbs, every)[1].max() < near.DETAIL / 2


def test_constant_and_empty_pictures_have_no_thumbnail() -> None:
    assert hashing.thumbnail(np.full((50, 50), 7, np.uint8)) is None
    assert hashing.thumbnail(np.full((50, 50), np.nan)) is None
    assert hashing.thumbnail(np.empty((0, 5), np.uint8)) is None
    assert hashing.volume_thumbnail(np.zeros((9, 9, 9))) is None
    with pytest.raises(ValueError, match="shape"):
        hashing.thumbnail(np.zeros((2, 3, 4, 5)))


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=20, deadline=None)
def test_volume_thumbnail_is_the_block_mean(x: int, y: int, z: int) -> None:
    volume = np.arange(x * y * z, dtype=np.float64).reshape(x, y, z)
    thumb = hashing.volume_thumbnail(volume)
    if x * y * z == 1:
        assert thumb is None
        return
    assert thumb is not None
    assert thumb.shape == (32, 32, 32)
    edges = [np.arange(33) * n // 32 for n in (x, y, z)]
    corner = volume[tuple(slice(0, max(e[1], 1)) for e in edges)].mean()
    last = volume[tuple(slice(min(e[31], n - 1), n) for e, n in zip(edges, (x, y, z), strict=True))].mean()
    assert thumb[0, 0, 0] == thumb.min() == 0 or corner > 0
    assert int(thumb[31, 31, 31]) == 255
    assert last >= corner


# ---------------------------------------------------------------- search


@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.lists(st.integers(0, 63), max_size=7), st.integers(0, 7))
def test_near_hashes_misses_nothing(base: list[int], flips: list[int], distance: int) -> None:
    mask = 0
    for bit in flips:
        mask ^= 1 << bit
    hashes = np.array([*base, *(h ^ mask for h in base)], np.uint64)
    wanted = {
        (i, j)
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= distance
    }
    assert {tuple(p) for p in near.near_hashes(hashes, distance=distance).tolist()} == wanted
    across = near.match_hashes(hashes, hashes, distance=distance)
    assert {tuple(p) for p in across.tolist() if p[0] < p[1]} == wanted


def test_too_great_a_distance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.7"):
        near.near_hashes(np.zeros(2, np.uint64), distance=8)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40).map(" ".join), max_size=10))
@settings(deadline=None)
def test_true_jaccard_equals_the_plain_definition(texts: list[str]) -> None:
    sets = near.ShingleSets(*hashing.shingles(texts))
    pairs = np.array([(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts))], np.int64).reshape(-1, 2)
    plain = [naive_shingles(t) for t in texts]
    wanted = [len(plain[i] & plain[j]) / len(plain[i] | plain[j]) for i, j in pairs]
    assert sets.jaccard(pairs[:, 0], pairs[:, 1]) == pytest.approx(wanted)


@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_union_find_equals_connected_components(n: int, edges: list[tuple[int, int]]) -> None:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = [(i % n, j % n) for i, j in edges]
    groups = near.Groups(n)
    for i, j in edges:
        groups.join(i, j)
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    _, label = connected_components(coo_array((np.ones(len(edges)), (rows, columns)), shape=(n, n)), directed=False)
    roots = groups.roots()
    for i in range(n):
        assert roots[i] == np.flatnonzero(label == label[i]).min()


def reports(n: int, rng: np.random.Generator, words: int = 60) -> list[str]:
    vocabulary = np.array([f"w{i}" for i in range(2000)])
    return [" ".join(rng.choice(vocabulary, words)) for _ in range(n)]


def test_near_texts_finds_planted_copies() -> None:
    """Recall of at least 99 % (GROUP-2, section 13) at similarity well above the threshold, and nothing false."""
    rng = np.random.default_rng(1)
    texts = reports(1000, rng)
    copies = []
    for i in range(400):
        words = texts[i].split()
        words[int(rng.integers(0, len(words)))] = f"new{i}"  # at most 5 of 56 shingles change: Jaccard 0.84 at least
        copies.append(" ".join(words))
    found = {tuple(p) for p in near.near_texts([*texts, *copies]).tolist()}
    planted = {(i, 1000 + i) for i in range(400)}
    assert found <= planted
    assert len(found) >= 0.99 * len(planted)
    near_equal = {tuple(p) for p in near.near_texts([*texts, *[t + " end" for t in texts]]).tolist()}
    assert len(near_equal & {(i, 1000 + i) for i in range(1000)}) >= 995


def test_equal_and_empty_texts() -> None:
    assert near.near_texts(["", "a b", "", "a b", "a b", "c"]).tolist() == [[1, 3], [3, 4]]
    assert near.near_texts([]).shape == (0, 2)


def test_a_bucket_of_thousands_stays_cheap_and_connected() -> None:
    template = "the heart is not enlarged the lungs are clear there is no effusion and no pneumothorax is seen number"
    pairs = near.near_texts([f"{template} {i}" for i in range(2000)])
    assert len(pairs) <= 2000 * near.WINDOW * near.BANDS
    groups = near.Groups(2000)
    for i, j in pairs.tolist():
        groups.join(i, j)
    assert len(set(groups.roots().tolist())) == 1


@pytest.mark.parametrize("modality", ["xray", "ct", "fundus"])
def test_synthetic_patients_share_their_anatomy_and_are_told_apart(modality: str) -> None:
    """They differ by findings and build alone; planted copies are found, all of them and no other."""
    from fabrica.curate.duplicates.dedup import ImageDuplicates
    from fabrica.curate.series import MiddleSlice
    from fabrica.phantom import Knobs, hospital

    made = list(hospital.records(40, modality, 0, knobs=Knobs(near_duplicates=0.2)))
    made = list(MiddleSlice()(iter(made), lambda record, reason: None))
    survey = ImageDuplicates(exact="group")
    decided = survey.decide(sorted((survey.note(r) for r in made), key=lambda row: row["id"]))
    groups: dict[str, set[str]] = {}
    for id_, decision in decided.items():
        groups.setdefault(decision.groups["near_image"], set()).add(id_)
    planted = [{record.id, record.links[0].to} for record in made if record.links]
    assert len(planted) >= 4
    assert sorted(groups.values(), key=min) == sorted(planted, key=min)
