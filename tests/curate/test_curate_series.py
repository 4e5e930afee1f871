"""Stacking slices and cutting volumes: geometry is kept, doubtful series are left alone."""

from dataclasses import replace

import numpy as np
import pytest

from fabrica.curate.series import MiddleSlice, StackSeries, to_ras
from fabrica.types import Item, Origin, Record, Region, Rights

ORIGIN = Origin("made", "a.dcm", "ab", "CC0-1.0")


def slices(
    places: list[float], *, series: str = "s", modality: str = "ct", spacing: tuple[float, float] = (2.0, 3.0)
) -> list[Record]:
    """Axial slices (row, column) with `spacing` (between rows, between columns): rows run backwards, columns left."""
    out = []
    for n, mm in enumerate(places):
        affine = np.array([[0, -spacing[1], 0, 90], [-spacing[0], 0, 0, 80], [0, 0, 1, mm], [0, 0, 0, 1.0]])
        value = np.full((4, 6), n, np.float32)
        value[1, 2] = 100 + mm
        item = Item("image", value, ORIGIN, unit="HU", affine=affine)
        groups = {"modality": modality, "series": series, "slice_mm": f"{mm:.4f}", "study": "st", "instance": str(n)}
        out.append(Record(f"{series}{n}", "p1", groups, {"image": (item,)}, labels={"mass": 1.0}))
    return out


def run(step: StackSeries, records: list[Record]) -> tuple[list[Record], list[tuple[str, str]]]:
    dropped: list[tuple[str, str]] = []
    return list(step(iter(records), lambda r, why: dropped.append((r.id, why)))), dropped


def test_slices_in_any_order_become_one_volume_whose_affine_finds_every_pixel() -> None:
    made = slices([10.0, 15.0, 20.0, 25.0])
    (volume,), dropped = run(StackSeries(), [made[i] for i in (2, 0, 3, 1)])
    item = volume.items["volume"][0]
    assert item.kind == "volume"
    assert item.array().shape == (6, 4, 4)  # column, row, slice
    assert item.unit == "HU"
    assert {id_ for id_, why in dropped if why == "stacked"} == {r.id for r in made}
    for k, record in enumerate(made):
        image = record.items["image"][0]
        for row, column in ((0, 0), (1, 2), (3, 5)):
            assert item.array()[column, row, k] == image.array()[row, column]
            assert item.affine is not None
            assert image.affine is not None
            assert item.affine @ [column, row, k, 1] == pytest.approx(image.affine @ [row, column, 0, 1])
    assert volume.groups == {"modality": "ct", "series": "s", "study": "st", "spacing": "even"}
    assert volume.labels == {"mass": 1.0}
    assert "stacked(4, even)" in item.origin.steps


@pytest.mark.parametrize(
    ("places", "said"),
    [([0, 5, 10, 15.05], "even"), ([0, 5, 10, 16], "uneven"), ([0, 5, 10, 20], "gap"), ([0, 5, 15, 20, 25], "gap")],
)
def test_spacing_is_checked_and_said(places: list[float], said: str) -> None:
    (volume,), _ = run(StackSeries(), slices(places))
    assert volume.groups["spacing"] == said


def doubtful() -> dict[str, list[Record]]:
    made = slices([0.0, 5.0, 10.0])
    image = made[1].items["image"][0]
    tilted = np.array(image.affine)
    tilted[:3, 0] = [0.5, -1.9, 0.3]
    region = Region("image", "point", np.zeros(2), "mass", ORIGIN)

    def second(**changes: object) -> list[Record]:
        return [made[0], replace(made[1], **changes), made[2]]  # type: ignore[arg-type]

    return {
        "two at one place": slices([0.0, 5.0, 5.0, 10.0]),
        "too few": slices([0.0, 5.0]),
        "another shape": second(items={"image": (replace(image, value=np.zeros((5, 6), np.float32)),)}),
        "another unit": second(items={"image": (replace(image, unit=None),)}),
        "another orientation": second(items={"image": (replace(image, affine=tilted),)}),
        "no affine": second(items={"image": (replace(image, affine=None),)}),
        "no place": second(groups={"modality": "ct", "series": "s"}),
        "a region": second(regions=(region,)),
        "X-ray": slices([0.0, 5.0, 10.0], modality="xray"),
    }


@pytest.mark.parametrize("why", doubtful())
def test_doubtful_series_pass_as_they_came(why: str) -> None:
    made = doubtful()[why]
    out, dropped = run(StackSeries(), made)
    assert [r.id for r in out] == [r.id for r in made]
    assert dropped == []


def test_series_are_kept_apart_and_records_without_one_pass() -> None:
    lone = Record("lone", "p9", {"modality": "ct"})
    out, _ = run(StackSeries(), [*slices([0, 1, 2], series="a"), lone, *slices([0, 1, 2, 3], series="b")])
    assert [r.id == "lone" or r.items["volume"][0].array().shape[2] for r in out] == [3, True, 4]


def test_rights_are_the_strictest() -> None:
    made = slices([0.0, 5.0, 10.0])
    made[1] = replace(made[1], rights=Rights(access="restricted", share="none"))
    (volume,), _ = run(StackSeries(), made)
    assert (volume.rights.access, volume.rights.share) == ("restricted", "none")


# ---------------------------------------------------------------- volume -> picture


def head(axes: str = "RAS", spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Item:
    """A 20 x 24 x 28 volume in `axes` order with markers: right 50, front 100, top 150 HU, body 10 in the middle."""
    ras = np.full((20, 24, 28), -1000, np.int16)
    ras[4:16, 4:20, 4:24] = 10
    ras[14:16, 10:14, 4:24] = 50
    ras[8:12, 18:20, 4:24] = 100
    ras[8:12, 10:14, 22:24] = 150
    order = ["RAS".index({"L": "R", "P": "A", "I": "S"}.get(a, a)) for a in axes]
    flips = [a in "LPI" for a in axes]
    value = ras.transpose(order)[tuple(slice(None, None, -1) if f else slice(None) for f in flips)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for i, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        affine[axis, i] = -spacing[axis] if flip else spacing[axis]
        affine[axis, 3] = (value.shape[i] - 1) * spacing[axis] if flip else 0
    return Item("volume", np.ascontiguousarray(value), ORIGIN, unit="HU", affine=affine)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIL", "ASL"])
def test_turned_to_ras(axes: str) -> None:
    item = head(axes)
    value, affine = to_ras(item.array(), np.asarray(item.affine))
    assert np.array_equal(value, head().array())
    assert affine == pytest.approx(np.eye(4))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "PIL"])
def test_axial_cut_shows_right_at_the_left_and_front_up(axes: str) -> None:
    cut = MiddleSlice(window=(0.0, 400.0)).cut(head(axes))
    picture = cut.array()
    assert picture.shape == (24, 20)
    assert picture.dtype == np.uint8
    right, front = np.argwhere(picture == round((50 + 200) / 400 * 255)), np.argwhere(picture == round(300 / 400 * 255))
    assert right[:, 1].max() < 10 - 3
    assert front[:, 0].max() < 12 - 3
    assert picture.min() == 0
    assert cut.origin.steps == ("middle_slice(z=13, window 0/400 HU)",)
    assert cut.affine is not None
    assert cut.affine @ [front[0, 0], front[0, 1], 0, 1] == pytest.approx([11, 19, 13, 1])


@pytest.mark.parametrize(("coarse", "shape", "top"), [((5, 1, 1), (28, 24), 150), ((1, 5, 1), (28, 20), 150)])
def test_thick_slices_are_cut_in_their_own_plane(coarse: tuple, shape: tuple[int, int], top: int) -> None:
    picture = MiddleSlice(window=(0.0, 400.0)).cut(head("LPS", coarse)).array()
    assert picture.shape == shape
    assert np.argwhere(picture == round((top + 200) / 400 * 255))[:, 0].max() < 8


def test_other_volumes_are_scaled_by_percentiles_and_images_are_left() -> None:
    item = replace(head(), value=np.arange(8000, dtype=np.float32).reshape(20, 20, 20), unit=None)
    record = Record("r", "p", items={"volume": (item,)})
    (out,) = MiddleSlice()(iter([record]), lambda r, why: None)
    picture = out.items["image"][0]
    assert picture.kind == "image"
    assert picture.array().max() > picture.array().min()
    assert "percentiles 1-99" in picture.origin.steps[-1]
    (again,) = MiddleSlice()(iter([out]), lambda r, why: None)
    assert again.items["image"] == out.items["image"]


def test_channels_and_constant_volumes() -> None:
    cut = MiddleSlice().cut
    assert cut(Item("volume", np.zeros((5, 6, 7), np.float32), ORIGIN)).array().max() == 0
    assert cut(Item("volume", np.zeros((5, 6, 7, 2), np.float32), ORIGIN)).array().shape == (6, 5)
    assert cut(Item("volume", np.ones((5, 6, 7, 3), np.uint8), ORIGIN)).array().shape == (6, 5, 3)
    assert cut(Item("volume", np.full((5, 6, 7), np.nan, np.float32), ORIGIN)).array().dtype == np.uint8
