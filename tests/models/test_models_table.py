"""Tables with holes (sheet S86, "Not a toy"): missing cells, schema, order of columns, new ones, matching."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fabrica.encode.cells import CellsEncode, Column, TableSchema
from fabrica.errors import Refused, UsageError
from fabrica.models import ConvTower, ProjectionHead, Tower
from fabrica.models.attend import Attend
from fabrica.models.load import encode_of, load
from fabrica.models.table_image import BOTH, IMAGE, TABLE, TableImage
from fabrica.models.table_tokens import GeneGroups, TableEncoder, TableTokens, attention
from fabrica.objectives.masked_table import Marginals, corrupted, hidden, masked_table
from fabrica.objectives.matching import alike, hard_negatives, matching_loss
from fabrica.objectives.table_image import TablePretrain
from fabrica.phantom.cohort import NAMES, cohort
from fabrica.systems import load_system
from fabrica.types import Absent, Batch, Field, Item, Origin, Record

ORIGIN = Origin("test", "t", "", "CC0-1.0", "synthetic")
PEOPLE = list(cohort(40, 0, size=16).records())
SCHEMA = TableSchema.fit(PEOPLE, ("table",), categories=NAMES[8:])
ENCODE = CellsEncode(SCHEMA)
RNG = np.random.default_rng(0)
C = len(SCHEMA.columns)


def cells(rows: int = 6, missing: float = 0.3, seed: int = 0) -> torch.Tensor:
    made = torch.from_numpy(np.stack([ENCODE(r.first("table"), RNG) for r in PEOPLE[:rows]]))
    gone = torch.rand(rows, C, generator=torch.Generator().manual_seed(seed)) < missing
    made[:, :C][gone] = 0
    made[:, C:][gone] = 0
    return made


def encoder(**options: object) -> TableEncoder:
    torch.manual_seed(0)
    return TableEncoder(SCHEMA, 16, 2, 4, **options).eval()  # type: ignore[arg-type]


def net(**options: object) -> TableImage:
    torch.manual_seed(0)
    towers = {
        IMAGE: Tower(ConvTower(1, (8, 16)), ProjectionHead((16, 16, 8))),
        TABLE: Tower(TableEncoder(SCHEMA, 16, 2, 4), ProjectionHead((16, 16, 8)), pool="cls"),
    }
    return TableImage(towers, 8, {"case": 2}, layers=2, heads=4, **options).eval()  # type: ignore[arg-type]


def fields(rows: int = 6, missing: float = 0.3) -> dict[str, Field]:
    images = torch.from_numpy(np.stack([r.first("image").array() for r in PEOPLE[:rows]]))[:, None, None]
    there = torch.ones(rows, 1, dtype=torch.bool)
    return {IMAGE: Field(images, there), TABLE: Field(cells(rows, missing)[:, None], there.clone())}


def table(**values: float) -> Item:
    return Item("table", np.array(list(values.values()), np.float64), ORIGIN, names=tuple(values))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


# ---------------------------------------------------------------- schema and cells


def test_the_schema_is_that_of_the_training_part_alone() -> None:
    train = PEOPLE[:20]
    schema = TableSchema.fit(train, ("table",), categories=NAMES[8:])
    values = np.array([r.first("table").array() for r in train])
    by_name = {c.name: c for c in schema.columns}
    assert by_name["number0"].mean == pytest.approx(values[:, 0].mean())
    assert by_name["number0"].std == pytest.approx(values[:, 0].std())
    assert by_name["number0"].grid[10] == pytest.approx(np.median(values[:, 0]))
    codes, counts = np.unique(values[:, 8], return_counts=True)
    assert by_name["category0"].categories == tuple(codes)
    assert by_name["category0"].share == pytest.approx(counts / 20)
    assert TableSchema.from_json(schema.to_json()) == schema
    assert encode_of(CellsEncode(schema).to_json()) == CellsEncode(schema)


def test_an_unseen_category_is_missing_and_counted_or_an_error() -> None:
    item = table(number0=0.0, category0=17.0)
    made = ENCODE(item, RNG)
    at = SCHEMA.names.index("category0")
    assert made[at] == made[C + at] == 0
    record = Record("r", "p", items={"table": (item,)})
    assert ENCODE.unseen_in([record, record, *PEOPLE], ("table",)) == {"category0": 2}
    with pytest.raises(Refused, match="never had") as error:
        replace(ENCODE, unseen="error")(item, RNG)
    assert error.value.code == "category_unseen"


def test_a_number_in_a_category_column_is_an_error() -> None:
    with pytest.raises(Refused, match="'category0' holds a number"):
        ENCODE(table(category0=1.5), RNG)
    rows = [Record("r", "p", items={"table": (table(sex=0.5),)})]
    with pytest.raises(Refused, match="'sex' holds a number"):
        TableSchema.fit(rows, ("table",), categories=("sex",))


def test_a_category_out_of_range_names_its_column() -> None:
    bad = cells()
    at = SCHEMA.names.index("category2")
    bad[3, at], bad[3, C + at] = 4.0, 1.0
    with pytest.raises(UsageError, match="'category2' holds category 4 in row 3; wanted a whole number from 0 to 3"):
        encoder()(bad)


def test_a_constant_column_is_warned_of_and_an_empty_one_refused() -> None:
    rows = [Record(f"{i}", f"{i}", items={"table": (table(a=1.0, b=float(i)),)}) for i in range(3)]
    with pytest.warns(UserWarning, match="column 'a' is constant"):
        schema = TableSchema.fit(rows, ("table",))
    assert CellsEncode(schema)(rows[0].first("table"), RNG)[0] == 0
    with pytest.raises(UsageError, match=r"no value in roles .* 'c'"):
        TableSchema.fit(rows, ("table",), columns=("b", "c"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TableSchema.fit(rows, ("table",), columns=("b",))


def test_a_schema_of_another_number_of_columns_is_refused() -> None:
    with pytest.raises(UsageError, match=r"reads 12 cells and as many flags, \(24,\); the field gives \(22,\)"):
        encoder().check((22,), None)
    with pytest.raises(UsageError, match="each named once"):
        TableSchema((SCHEMA.columns[0], SCHEMA.columns[0]))
    with pytest.raises(UsageError, match="wanted its categories"):
        Column("sex", "category")


# ---------------------------------------------------------------- missing cells


@pytest.mark.parametrize("value", [7.0, -3.0, 1e6, math.nan])
@pytest.mark.parametrize("missing", ["token+mask", "token"])
@pytest.mark.parametrize("mask_fusion", [False, True])
def test_what_stands_under_a_missing_cell_changes_nothing(value: float, missing: str, mask_fusion: bool) -> None:
    clean = cells()
    dirty = clean.clone()
    dirty[:, :C][clean[:, C:] < 0.5] = value
    table_encoder = encoder(missing=missing)
    close(table_encoder(dirty).values, table_encoder(clean).values)
    model = net(mask_fusion=mask_fusion)
    image, seen = model.encode_image(fields()[IMAGE])
    out = [model.fuse(*model.encode_table(x), image.tokens, seen) for x in (dirty, clean)]
    close(*out)
    for a, b in zip(model.reconstruct(out[0]), model.reconstruct(out[1]), strict=True):
        close(a, b)


def test_nobody_attends_to_a_missing_cell_but_itself() -> None:
    """The token of a missing cell changes its own output and no other, in the table encoder; in the interaction as
    published it does reach the others, with `mask_fusion` it does not."""
    x = cells(1, missing=0.0)
    x[0, 2] = x[0, C + 2] = 0
    table_encoder = encoder()
    before = table_encoder(x).values[0]
    with torch.no_grad():
        table_encoder.tokens.missing += torch.linspace(-1, 1, 16)
    change = (table_encoder(x).values[0] - before).abs().amax(1)
    assert change[3] > 1e-3
    assert change[[0, 1, 2, *range(4, C + 1)]].max() < 1e-6
    for mask_fusion in (False, True):
        model = net(mask_fusion=mask_fusion)
        image, seen = model.encode_image(fields(1)[IMAGE])
        tokens, there = model.encode_table(x)
        moved = tokens.clone()
        moved[0, 3] += torch.randn(16)
        with torch.no_grad():
            a, b = (model.fuse(t, there, image.tokens, seen)[0, 0] for t in (tokens, moved))
        assert bool((a - b).abs().max() < 1e-6) is mask_fusion


def test_the_attention_mask_is_the_paper_s() -> None:
    there = torch.tensor([[True, False, True]])
    allowed = attention(there)[0]
    assert allowed[:, 2].tolist() == [False, False, True, False]
    assert allowed[2].tolist() == [True, True, True, True]


def test_a_query_without_keys_gets_nothing_and_no_nan() -> None:
    attend = Attend(8, 2)
    x = torch.randn(2, 3, 8, requires_grad=True)
    seen = torch.tensor([[True, False, False], [False, False, False]])
    out = attend(x, x, seen)
    assert (out[1] == 0).all()
    alone = attend(x[:1], x[:1, :1])
    close(out[:1], alone)
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("keys", [1, 10_000])
def test_one_token_and_ten_thousand(keys: int) -> None:
    model = net()
    tokens, there = model.encode_table(cells(1))
    image = torch.randn(1, keys, 16)
    seen = torch.ones(1, keys, dtype=torch.bool)
    out = model.fuse(tokens, there, image, seen)
    assert torch.isfinite(out).all()
    padded = torch.cat([image, torch.full((1, 3, 16), 9.0)], 1)
    close(model.fuse(tokens, there, padded, torch.cat([seen, torch.zeros(1, 3).bool()], 1)), out)


# ---------------------------------------------------------------- columns


def test_the_order_of_columns_does_not_matter() -> None:
    order = np.random.default_rng(1).permutation(C).tolist()
    schema = SCHEMA.permuted(order)
    one, other = encoder(), encoder().with_columns(schema)
    x = cells()
    y = torch.cat([x[:, :C][:, order], x[:, C:][:, order]], 1)
    close(other.eval()(y).values[:, 0], one(x).values[:, 0])


def test_a_new_column_has_a_fresh_embedding_and_leaves_the_rest_learned() -> None:
    new = TableSchema(
        (*SCHEMA.columns[:3], Column("height", "number", grid=SCHEMA.columns[0].grid), *SCHEMA.columns[3:])
    )
    old = encoder()
    made = old.with_columns(new)
    x = cells()
    y = torch.zeros(len(x), 2 * (C + 1))
    keep = [i for i in range(C + 1) if i != 3]
    y[:, keep], y[:, [C + 1 + i for i in keep]] = x[:, :C], x[:, C:]
    close(made.eval()(y).values[:, 0], old(x).values[:, 0])
    y[:, 3], y[:, C + 1 + 3] = 1.0, 1.0
    assert (made(y).values[:, 0] - old(x).values[:, 0]).abs().max() > 1e-4
    kinds = {"number": "category", "category": "number"}
    first = SCHEMA.columns[0]
    changed = replace(first, kind=kinds[first.kind], categories=(0.0,), share=(1.0,))
    with pytest.raises(UsageError, match=f"column {first.name!r} was a {first.kind}"):
        old.with_columns(TableSchema((changed, *SCHEMA.columns[1:])))


def test_a_number_may_have_its_own_weights_a_column() -> None:
    tokens = TableTokens(SCHEMA, 8, shared=False)
    assert tokens.weight.shape == (C, 8)
    assert tokens(cells())[0].shape == (6, C + 1, 8)


def test_gene_groups_see_their_own_columns_alone() -> None:
    groups = GeneGroups([[0, 1], [1, 2, 3]], 8).eval()
    x, flags = torch.randn(4, 4), torch.ones(4, 4)
    out, there = groups(x, flags)
    moved = x.clone()
    moved[:, 0] += 1
    again, _ = groups(moved, flags)
    assert out.shape == (4, 2, 8)
    assert there.all()
    close(again[:, 1], out[:, 1])
    assert (again[:, 0] - out[:, 0]).abs().max() > 1e-4
    flags[0, :2] = 0
    assert groups(x, flags)[1].tolist()[0] == [False, True]
    with pytest.raises(UsageError, match="at least one column"):
        GeneGroups([[]])


# ---------------------------------------------------------------- the fusion


def test_a_record_is_answered_by_the_parts_that_it_has() -> None:
    model = net()
    given = fields(4, missing=0.0)
    given[IMAGE] = replace(given[IMAGE], valid=torch.tensor([[True], [False], [True], [False]]))
    given[TABLE] = replace(given[TABLE], valid=torch.tensor([[True], [True], [False], [False]]))
    reading = model.read(given)
    assert reading.names == (IMAGE, TABLE, BOTH)
    assert reading.ran.tolist() == [
        [True, True, True],
        [False, True, False],
        [True, False, False],
        [False, True, False],
    ]
    answer = model.answer(given)["case"]
    logits = reading.logits["case"]
    close(answer[0], logits[0].mean(0))
    close(answer[1], logits[1, 1])
    close(answer[2], logits[2, 0])
    prior = model.answer({TABLE: Field(torch.zeros(1, 1, 2 * C), torch.ones(1, 1).bool())})["case"]
    close(answer[3:], prior)


def test_dropped_masked_and_nan_filled_fields_are_one() -> None:
    model = net()
    given = fields(5)
    for name in (IMAGE, TABLE):
        gone = torch.zeros(5, 1, dtype=torch.bool)
        dropped = model.answer({n: f for n, f in given.items() if n != name})["case"]
        masked = model.answer({**given, name: replace(given[name], valid=gone)})["case"]
        nans = Field(torch.full_like(given[name].values, torch.nan), gone)
        close(masked, dropped)
        close(model.answer({**given, name: nans})["case"], dropped)


def test_a_row_does_not_depend_on_its_batch() -> None:
    model = net()
    given = fields(20)
    given[IMAGE].valid[3] = False
    whole = model.answer(given)["case"]
    for i in (0, 3, 19):
        close(model.answer({n: Field(f.values[i : i + 1], f.valid[i : i + 1]) for n, f in given.items()})["case"][0],
              whole[i])  # fmt: skip


def test_an_encoder_has_no_gradient_from_rows_without_it() -> None:
    for gone, used in ((IMAGE, TABLE), (TABLE, IMAGE)):
        model = net()
        given = fields(4)
        given[gone] = replace(given[gone], valid=torch.zeros(4, 1, dtype=torch.bool))
        model.answer(given)["case"].sum().backward()
        assert all(p.grad is None or p.grad.abs().max() == 0 for p in model.tower(gone).parameters())
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.tower(used).parameters())


def test_saved_and_loaded_answers_agree(tmp_path: Path) -> None:
    system = load_system("tip")
    settings = replace(system.settings["tiny"], categories=NAMES[8:])
    bundle = system.build(settings, PEOPLE)
    again = load(bundle.save_pretrained(tmp_path / "model"))
    np.testing.assert_allclose(
        again.answer(PEOPLE[:6]).tasks["case"], bundle.answer(PEOPLE[:6]).tasks["case"], atol=1e-6
    )  # fmt: skip


# ---------------------------------------------------------------- pre-training


def test_the_loss_of_masked_cells_by_hand() -> None:
    truth = cells(3, missing=0.0)
    model = net()
    tokens = model.table.tokens
    numbers, categories = torch.randn(3, C), torch.randn(3, C, tokens.rows.num_embeddings)
    masked = torch.zeros(3, C, dtype=torch.bool)
    n, k = SCHEMA.names.index("number3"), SCHEMA.names.index("category1")
    masked[0, n] = masked[1, k] = True
    for per_column in (False, True):
        loss, count, said = masked_table(
            numbers, categories, truth, masked, tokens.offset, tokens.size, per_column=per_column
        )
        rows = slice(int(tokens.offset[k]), int(tokens.offset[k] + tokens.size[k])) if per_column else slice(None)
        start = 0 if per_column else int(tokens.offset[k])
        logits = categories[1, k, rows]
        entropy = torch.logsumexp(logits, 0) - logits[start + int(truth[1, k])]
        square = (numbers[0, n] - truth[0, n]) ** 2
        assert float(loss) == pytest.approx(float(0.5 * square + 0.5 * entropy), rel=1e-5)
        assert count == 2
        assert said["cross_entropy"] == pytest.approx(float(entropy), rel=1e-5)


def test_no_masked_category_at_all_is_no_division_by_zero() -> None:
    numbers, categories = torch.zeros(2, C, requires_grad=True), torch.zeros(2, C, 16)
    size = net().table.tokens.size
    only = torch.zeros(2, C, dtype=torch.bool)
    only[:, SCHEMA.names.index("number1")] = True
    loss, count, said = masked_table(numbers, categories, cells(2, 0.0), only, torch.zeros(C).long(), size)
    assert math.isfinite(loss)
    assert (count, set(said)) == (2, {"squared_error"})
    nothing = torch.zeros(2, C, dtype=torch.bool)
    loss, count, said = masked_table(numbers, categories, cells(2, 0.0), nothing, torch.zeros(C).long(), size)
    assert (float(loss.detach()), count, said) == (0.0, 0, {})
    plain = TableSchema(tuple(c for c in SCHEMA.columns if c.kind == "number"))
    assert TableEncoder(plain, 8, 1, 2)(torch.ones(2, 16)).values.shape == (2, 9, 8)


def test_half_the_columns_are_hidden_and_only_known_cells_are_asked_for() -> None:
    x = cells(40, missing=0.3)
    left, asked = hidden(x, 0.5)
    gone = (x[:, C:] > 0.5) & (left[:, C:] < 0.5)
    assert torch.equal(gone, asked)
    assert (left[:, C:].sum(1) <= C // 2).all()
    complete = cells(40, missing=0.0)
    left, asked = hidden(complete, 0.5)
    assert (asked.sum(1) == C // 2).all()
    assert (left[:, :C][asked] == 0).all()


def test_corruption_draws_from_the_column_and_leaves_missing_cells_missing() -> None:
    torch.manual_seed(0)
    marginals = Marginals(SCHEMA.columns)
    drawn = marginals.draw(4000)
    for i, column in enumerate(SCHEMA.columns):
        if column.kind == "number":
            assert abs(float(drawn[:, i].mean())) < 0.15
            assert float(drawn[:, i].std()) == pytest.approx(1.0, abs=0.15)
        else:
            codes, counts = drawn[:, i].unique(return_counts=True)
            assert codes.tolist() == list(range(len(column.categories)))
            assert (counts / 4000).tolist() == pytest.approx(column.share, abs=0.05)
    x = cells(40, missing=0.3)
    y = corrupted(x, marginals, 0.3)
    assert torch.equal(y[:, C:], x[:, C:])
    there = x[:, C:] > 0.5
    assert (y[:, :C] == x[:, :C])[~there].all()
    assert 0.15 < float((y[:, :C] != x[:, :C])[there].float().mean()) < 0.4
    assert torch.equal(corrupted(x, marginals, 0.0), x)


def test_hard_negatives_are_hard_and_never_of_the_same_person_or_table() -> None:
    torch.manual_seed(0)
    scores = torch.zeros(4, 4)
    scores[0, 2] = 8.0
    subjects = torch.tensor([1, 1, 2, 3])
    rows = torch.tensor([[0.0], [1.0], [2.0], [2.0]])
    same = alike(subjects, rows)
    for _ in range(200):
        drawn, some = hard_negatives(scores, same)
        assert some.all()
        assert not same[torch.arange(4), drawn].any()
    hits = np.mean([int(hard_negatives(scores, same)[0][0]) == 2 for _ in range(200)])
    assert hits > 0.95
    nobody = torch.ones(3, 3, dtype=torch.bool)
    assert not hard_negatives(torch.zeros(3, 3), nobody)[1].any()
    with pytest.raises(UsageError, match="batch of 1"):
        hard_negatives(torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))
    grad = torch.zeros(4, 4, requires_grad=True)
    assert not hard_negatives(grad, same)[0].requires_grad


def test_the_matching_loss_and_its_balanced_accuracy() -> None:
    loss, right = matching_loss(torch.tensor([[0.0, 9.0]]), torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    assert right == 0.75
    assert float(loss) == pytest.approx((2 * math.log1p(math.exp(-9)) + math.log1p(math.exp(9))) / 3, rel=1e-4)


def batch(rows: int, **changes: torch.Tensor) -> Batch:
    given = fields(rows)
    for name, valid in changes.items():
        given[name] = replace(given[name], valid=valid)
    return Batch(tuple(map(str, range(rows))), given, keys={"subject": torch.arange(rows)})


def test_pre_training_uses_what_each_record_has() -> None:
    torch.manual_seed(0)
    model, loss = net(), TablePretrain()
    whole = loss(model, batch(8))
    assert set(whole.terms) >= {"contrast", "matching", "masked", "squared_error", "cross_entropy"}
    assert whole.count == 8
    blind = loss(model, batch(8, image=torch.zeros(8, 1).bool()))
    assert set(blind.terms) == {"masked", "squared_error", "cross_entropy"}
    bare = loss(model, batch(8, table=torch.zeros(8, 1).bool()))
    assert (float(bare.total), bare.count) == (0.0, 0)
    with pytest.raises(UsageError, match="batch of 1"):
        loss(model, batch(1))


def test_a_table_that_is_absent_equals_one_without_cells() -> None:
    record = PEOPLE[0]
    gone = replace(record.items["table"][0], value=Absent.NOT_DONE, names=())
    system = load_system("tip")
    bundle = system.build(replace(system.settings["tiny"], categories=NAMES[8:]), PEOPLE)
    absent = bundle.answer([record.updated(items={**record.items, "table": (gone,)})]).tasks["case"]
    np.testing.assert_allclose(bundle.answer([record.without("table")]).tasks["case"], absent, atol=1e-6)
