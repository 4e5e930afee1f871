"""The column map: every key and expression, and what a wrong one says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabrica.errors import Refused, UsageError
from fabrica.sources.columns import cell, compile_map, compile_one, label, modality, same, split_of

HEADER = ("file", "finding", "Patientid", "clinical notes", "a == b")


def test_expressions_read_columns_constants_tests_templates_and_patterns() -> None:
    row = {"file": "p7_x.png", "finding": "COVID-19", "Patientid": 3.0, "clinical notes": " fever "}
    said = {
        "image": "file", "report": "clinical notes", "group:site": "'A'", "label:covid": "finding == COVID-19",
        "label:other": "finding != COVID-19", "label:viral": "finding in SARS|COVID-19", "id": "{Patientid}/{file}",
        "subject": "file ~ p([0-9]+)_",
    }  # fmt: skip
    got = {k: e(row) for k, e in compile_map(said, HEADER).items()}
    assert got == {
        "image": "p7_x.png", "report": "fever", "group:site": "A", "label:covid": 1.0, "label:other": 0.0,
        "label:viral": 1.0, "id": "3/p7_x.png", "subject": "7",
    }  # fmt: skip


def test_a_header_that_looks_like_a_test_is_a_column() -> None:
    assert compile_one("a == b", HEADER)({"a == b": "7"}) == "7"


@pytest.mark.parametrize("text", ["finding == x", "finding != x", "finding in x|y", "finding has x"])
@pytest.mark.parametrize("empty", ["", "  ", "NaN", None, float("nan")])
def test_a_test_of_an_empty_cell_is_absent_not_zero(text: str, empty: object) -> None:
    assert compile_one(text, HEADER)({"finding": empty}) is None


def test_has_finds_a_value_among_several() -> None:
    has = compile_one("finding has Mass", HEADER)
    assert has({"finding": "Effusion|Mass"}) == 1.0
    assert has({"finding": "Massive effusion"}) == 0.0


def test_numbers_compare_as_numbers() -> None:
    one = compile_one("finding == 1", HEADER)
    assert [one({"finding": v}) for v in ("1", "1.0", 1, 1.0, "01", "1.5")] == [1, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("columns", "near"),
    [
        ({"imag": "file"}, "did you mean 'image'"), ({"label": "finding"}, "did you mean 'label:NAME'"),
        ({"image": "fiel"}, "did you mean 'file'"), ({"label:x": "findng == 1"}, "did you mean 'finding'"),
        ({"image": "{fiel}.png"}, "did you mean 'file'"),
    ],
)  # fmt: skip
def test_a_typo_names_the_near_name(columns: dict[str, str], near: str) -> None:
    with pytest.raises(UsageError, match="no column") as error:
        compile_map(columns, HEADER)
    assert near in str(error.value)


def test_a_broken_pattern_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="regular expression"):
        compile_one("file ~ ([", HEADER)


def test_a_label_without_numbers_says_how_to_write_the_test() -> None:
    with pytest.raises(Refused, match="finding == COVID-19"):
        label("label:covid", compile_one("finding", HEADER), {"finding": "COVID-19"})
    assert label("label:x", compile_one("finding", HEADER), {"finding": "Yes"}) == 1.0
    assert label("label:x", compile_one("finding", HEADER), {"finding": ""}) is None


def test_splits_and_modalities_take_their_usual_names() -> None:
    assert [split_of(v) for v in ("train", "TUNING", "held_out", None)] == ["train", "val", "test", None]
    assert [modality(v) for v in ("X-ray", "CR", "MRI", "ultrasound")] == ["xray", "xray", "mr", "ultrasound"]
    with pytest.raises(Refused):
        split_of("fold3")


@given(st.text(max_size=20))
def test_equal_and_unequal_are_opposites_for_every_cell(value: str) -> None:
    equal, unequal = compile_one("finding == x", HEADER), compile_one("finding != x", HEADER)
    row = {"finding": value}
    if cell(value) is None:
        assert equal(row) is None
        assert unequal(row) is None
    else:
        assert equal(row) == 1 - unequal(row) == float(same(cell(value), "x"))
