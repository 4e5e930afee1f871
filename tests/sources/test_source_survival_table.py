"""Follow-up tables: one record a patient, signed months, absent slides by name, bad rows set aside."""

from pathlib import Path

import numpy as np
import pytest

from fabrica.errors import UsageError
from fabrica.sources import Quarantined, Ref
from fabrica.sources.survival_table import read
from fabrica.types import Absent, Record

HEAD = "case_id,slide_id,site,age,is_female,survival_months,censorship,TP53_rnaseq,TP53_cnv,ZYX"


def table(folder: Path, *rows: str, head: str = HEAD) -> list[Record | Quarantined]:
    path = folder / "t.csv"
    path.write_text("\n".join([head, *rows]) + "\n", "utf-8")
    return list(read(Ref(path, "t.csv", "demo", columns={"slides": "features"})))


def test_a_patient_with_two_slides_one_of_them_missing(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "svs.1s.npy", np.ones((4, 3), np.float32))
    row = "A,svs.{}s.svs,X,61,0,24.5,0,-0.5,,1.5"
    (record,) = table(tmp_path, row.format(1), row.format(2))
    assert record.labels == {"survival": 24.5}
    found, lost = record.items["slide"]
    assert found.array().shape == (4, 3)
    assert found.origin.key == "features/svs.1s.npy"  # the ending goes, not the letters s, v and the dot
    assert lost.value is Absent.NOT_LINKED
    assert "svs.2s" in lost.origin.key
    assert record.items["omics/rnaseq"][0].names == ("TP53_rnaseq", "ZYX")
    assert "omics/cnv" not in record.items
    assert record.items["table/clinical"][0].array().tolist() == [61.0, 0.0]


def test_genes_without_an_ending_are_mutations_where_all_say_0_or_1(tmp_path: Path) -> None:
    one, two = table(tmp_path, "A,,X,61,0,24,1,0.5,0,1", "B,,X,61,0,24,1,0.5,0,0")
    assert [r.items["omics/mutation"][0].names for r in (one, two)] == [("ZYX",)] * 2
    assert one.items["omics/rnaseq"][0].names == ("TP53_rnaseq",)
    one, two = table(tmp_path, "A,,X,61,0,24,1,0.5,0,1", "B,,X,61,0,24,1,0.5,0,0.3")
    assert one.items["omics/rnaseq"][0].names == ("TP53_rnaseq", "ZYX")  # one cell of the table says otherwise


def test_censored_is_negative_and_days_become_months(tmp_path: Path) -> None:
    (one,) = table(tmp_path, "A,,X,61,0,24,1,0,0,0")
    assert one.labels == {"survival": -24.0}
    (two,) = table(
        tmp_path, "A,,X,61,0,365.25,1,0,0,0", head=HEAD.replace("months", "days").replace("censorship", "event")
    )
    assert two.labels["survival"] == pytest.approx(12.0)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (("A,,X,61,0,0,1,0,0,0",), "time_not_positive"), (("A,,X,61,0,-3,1,0,0,0",), "time_not_positive"),
        (("A,,X,61,0,,1,0,0,0",), "time_not_positive"), (("A,,X,61,0,3,2,0,0,0",), "event_not_0_1"),
        (("A,,X,61,0,3,,0,0,0",), "event_not_0_1"), (("A,a,X,61,0,3,1,0,0,0", "A,b,X,61,0,4,1,0,0,0"), "rows_disagree"),
    ],
)  # fmt: skip
def test_bad_follow_ups_are_set_aside_and_the_rest_goes_on(tmp_path: Path, rows, code: str) -> None:
    found = table(tmp_path, *rows, "B,,X,50,1,9,0,0,0,0")
    assert [f.code for f in found if isinstance(f, Quarantined)] == [code]
    assert [f.labels for f in found if isinstance(f, Record)] == [{"survival": 9.0}]


def test_both_units_or_no_follow_up_is_a_wrong_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="survival_days"):
        table(tmp_path, "A,,X,61,0,3,1,0,0,0,9", head=HEAD + ",survival_days")
    with pytest.raises(UsageError, match="case_id"):
        table(tmp_path, "A,1", head="who,age")
