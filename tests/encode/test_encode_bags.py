"""Bags and groups of columns: raster order, what is refused by name, the transform there and back."""

import numpy as np
import pytest

from fabrica.encode.bags import BagEncode
from fabrica.encode.groups import GroupEncode, groups_in
from fabrica.errors import Refused, UsageError
from fabrica.types import Item, Origin, Record

FROM = Origin("demo", "slide 7", "", "")
RNG = np.random.default_rng(0)


def genes(values, names=("TP53_rnaseq", "TP53_cnv", "KRAS_rnaseq", "FLAT_rnaseq")) -> Record:
    return Record("r", "r", items={"omics": (Item("omics", np.array(values, np.float32), FROM, names=tuple(names)),)})


def test_the_order_in_a_file_does_not_matter_where_there_are_coordinates() -> None:
    bag = RNG.standard_normal((9, 5)).astype(np.float32)
    bag[:, :2] = [[x, y] for x in range(3) for y in range(3)]
    encode = BagEncode(3, 12)
    one, other = (encode(Item("slide", b, FROM), RNG) for b in (bag, bag[RNG.permutation(9)]))
    np.testing.assert_array_equal(one, other)
    assert one[:, -1].sum() == 9
    np.testing.assert_array_equal(one[1, :-1], bag[3, 2:])  # the second patch of the top row: x 1, y 0


def test_of_more_patches_some_are_taken() -> None:
    bag = Item("slide", np.arange(20, dtype=np.float32)[:, None], FROM)
    assert BagEncode(1, 4)(bag, RNG)[:, 0].tolist() == [0, 5, 10, 15]
    drawn = BagEncode(1, 4, draw=True)
    assert drawn(bag, np.random.default_rng(1)).tolist() != drawn(bag, np.random.default_rng(2)).tolist()
    assert drawn.still()(bag, RNG)[:, 0].tolist() == [0, 5, 10, 15]
    assert BagEncode.from_json(drawn.to_json()) == drawn


@pytest.mark.parametrize(
    ("bag", "code"),
    [(np.zeros((3, 4)), "bag_shape"), (np.zeros((0, 3)), "bag_empty"), (np.full((2, 3), np.nan), "bag_not_finite"),
     (np.zeros(3), "bag_shape")],
)  # fmt: skip
def test_bad_bags_are_refused(bag, code: str) -> None:
    with pytest.raises(Refused, match=r"slide 7") as error:
        BagEncode(3, 5)(Item("slide", bag, FROM), RNG)
    assert error.value.code == code


def test_groups_take_genes_by_name_and_may_share() -> None:
    rows = [genes([1, 2, 3, 5]), genes([3, 4, 5, 5])]
    encode = GroupEncode.fit(rows, ("omics",), {"a": ("TP53", "ABSENT"), "b": ("KRAS_rnaseq", "TP53_cnv", "FLAT")})
    columns = encode.table.columns
    assert [[columns[i] for i in m] for _, m in encode.groups] == [
        ["TP53_cnv", "TP53_rnaseq"], ["FLAT_rnaseq", "KRAS_rnaseq", "TP53_cnv"],
    ]  # fmt: skip
    out = dict(zip(columns, encode(rows[0].items["omics"][0], RNG).tolist(), strict=True))
    assert out == {"TP53_cnv": -1, "TP53_rnaseq": -1, "KRAS_rnaseq": -1, "FLAT_rnaseq": 0}  # constant: 0
    less = genes([3], ("TP53_rnaseq",)).items["omics"][0]
    assert sorted(encode(less, RNG).tolist()) == [0, 0, 0, 1]
    assert GroupEncode.from_json(encode.to_json()) == encode


def test_a_group_without_a_column_and_a_nan_gene_are_named() -> None:
    rows = [genes([1, 2, 3, 4]), genes([2, 3, 4, 4])]
    with pytest.raises(UsageError, match="'empty'"):
        GroupEncode.fit(rows, ("omics",), {"a": ("TP53",), "empty": ("NOPE",)})
    encode = GroupEncode.fit(rows, ("omics",), {"a": ("TP53",)})
    with pytest.raises(Refused, match="TP53_cnv"):
        encode(genes([1, np.nan, 3, 4]).items["omics"][0], RNG)


def test_log_is_of_both_signs_and_groups_are_found_by_letters() -> None:
    rows = [genes([-9, 0, 99, 1]), genes([9, 0, 0, 1])]
    encode = GroupEncode.fit(rows, ("omics",), {"a": ("TP53",)}, log=True)
    assert encode.table.std[encode.table.columns.index("TP53_rnaseq")] == pytest.approx(np.log(10))
    assert set(groups_in(rows, ("omics",))) == {"TP", "KRAS", "FLAT"}
