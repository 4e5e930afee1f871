"""One step: gradient cache equals the plain step; forward passes are shared; data in memory equals its collate."""

import pytest
import torch
from torch import Generator, nn
from toy_train import PAIR, Sick, Toy, ToyCollate, records

from fabrica.errors import UsageError
from fabrica.objectives.pairs import Contrast
from fabrica.train.memory import InMemory
from fabrica.train.optim import adamw, multiplier, rate
from fabrica.train.step import Terms, gradients, rows
from fabrica.types import Batch, Field, Schedule

TERMS = Terms.of(
    {"pair": PAIR, "sick": Sick(), "again": Contrast(("text", "image"), weights=(1.0, 0.0))}, {"sick": 0.3}
)


def batch(n=24):
    made = ToyCollate()(records(n), 0)
    made.known["sick"][::5] = False  # the plain term's rows differ from chunk to chunk
    return made


def grads(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def close(one, two, tol=1e-5):
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=tol, atol=tol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("chunk", [1, 5, 8, 23])
def test_gradient_cache_equals_the_plain_step(chunk):
    plain, cached = Toy(dropout=0.0), Toy(dropout=0.0)
    one = gradients(plain, batch(), TERMS, seed=1)
    two = gradients(cached, batch(), TERMS, seed=1, chunk=chunk)
    assert two.total == pytest.approx(one.total, abs=1e-6)
    assert two.count == one.count
    assert two.terms == pytest.approx(one.terms, abs=1e-5)
    close(grads(plain), grads(cached))
    assert "logit_scale.log_scale" in grads(cached)
    assert "unused.weight" not in grads(cached)


def test_gradient_cache_repeats_dropout():
    """Against one graph over chunks encoded one after the other: the same draws, so the same gradient."""
    reference, cached, whole, chunk = Toy(dropout=0.5), Toy(dropout=0.5), batch(), 7
    torch.manual_seed(11)
    parts = [reference.embed(rows(whole, slice(i, i + chunk)).fields)[0] for i in range(0, 24, chunk)]
    joined = {n: torch.cat([p[n] for p in parts]) for n in ("image", "text")}
    PAIR.loss(reference, joined, {}, {}, Generator()).total.backward()
    torch.manual_seed(11)
    gradients(cached, whole, Terms.of({"pair": PAIR}, {}), seed=0, chunk=chunk)
    close(grads(reference), grads(cached))
    other = Toy(dropout=0.5)
    torch.manual_seed(12)
    gradients(other, whole, Terms.of({"pair": PAIR}, {}), seed=0, chunk=chunk)
    assert not torch.allclose(grads(other)["image.0.weight"], grads(cached)["image.0.weight"], atol=1e-5)


def test_gradient_cache_refuses_batch_norm_in_training_mode():
    model = Toy(norm=nn.BatchNorm1d)
    with pytest.raises(UsageError, match=r"batch norm 'image\.1' in training mode"):
        gradients(model, batch(), TERMS, seed=0, chunk=4)
    gradients(model.eval(), batch(), TERMS, seed=0, chunk=4)


def test_contrastive_terms_share_one_forward_pass():
    model = Toy()
    gradients(model, batch(), TERMS, seed=0)
    assert model.calls == 1


def test_rate_and_prefixes():
    plan = Schedule(steps=100, batch=1, lr=2.0, warmup=10, final=0.1)
    rates = [rate(plan, s) for s in range(100)]
    assert rates[9] == rates[10] == max(rates) == 2.0
    assert rates[0] == pytest.approx(0.2)
    assert rates[-1] == pytest.approx(0.2, abs=0.01)
    assert multiplier("text.layers.1.weight", {"text": 0.5, "text.layers.1": 2.0}) == 2.0
    assert multiplier("text.layers.10.weight", {"text": 0.5, "text.layers.1": 2.0}) == 0.5
    assert multiplier("image.weight", {"text": 0.5}) == 1.0


def test_no_decay_for_norms_biases_and_scale():
    model = Toy()
    groups = adamw(model, Schedule(steps=1, batch=1, lr=1.0, weight_decay=0.2, lr_scale={"text": 0.5})).param_groups
    of = {id(p): (g["weight_decay"], g["factor"]) for g in groups for p in g["params"]}
    got = {n: of[id(p)] for n, p in model.named_parameters()}
    assert got["image.0.weight"] == (0.2, 1.0)
    assert got["text.0.weight"] == (0.2, 0.5)
    assert got["image.0.bias"] == got["image.1.weight"] == got["logit_scale.log_scale"] == (0.0, 1.0)


# ------------------------------------------------------------------ data in memory


def test_views_draw_at_every_visit_and_by_epoch_alone():
    whole = Batch(("a", "b"), {"x": Field(torch.zeros(2, 1, 3), torch.ones(2, 1).bool())})

    def noise(field, generator):
        return Field(field.values + torch.randn(field.values.shape, generator=generator), field.valid)

    held = InMemory(whole, views={"x": noise})
    one, again, next_one = (held.batch(["b", "a"], e).fields["x"].values for e in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, next_one)
    with pytest.raises(UsageError, match="a view of 'y'"):
        InMemory(whole, views={"y": noise})
    with pytest.raises(UsageError, match="no record 'c'"):
        held.batch(["c"], 0)
    with pytest.raises(UsageError, match="twice"):
        InMemory(Batch(("a", "a"), whole.fields))
    with pytest.raises(UsageError, match="mix_by='site'"):
        held.groups("site")


@pytest.mark.parametrize("view", ["whole", "one_of", "one_sentence"])
@pytest.mark.parametrize("augment", [False, True])
def test_in_memory_equals_collate_at_every_visit(view, augment):
    import numpy as np
    from tokenizers import Tokenizer, models, pre_tokenizers

    from fabrica.encode.augment import MedicalImageAugment
    from fabrica.encode.collate import Collate, Use
    from fabrica.encode.image import ImageEncode
    from fabrica.encode.text import TextEncode
    from fabrica.types import Absent, Item, Origin, Record

    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", "a", "b", "c"])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    rng, o = np.random.default_rng(0), Origin("t", "k", "", "CC0-1.0")
    people = []
    for i in range(6):
        image = Absent.NOT_DONE if i == 2 else rng.random((9, 9)).astype(np.float32)
        texts = tuple(Item("text", t, o) for t in ("A b. C.", "b c a b c a.")[: 1 + i % 2])
        items = {"image": (Item("image", image, o),)} | ({} if i == 4 else {"report": texts})
        people.append(Record(f"r{i}", f"s{i // 2}", {"site": str(i % 2)}, items, labels={"x": float(i)}))
    encode = ImageEncode(8, augment=MedicalImageAugment() if augment else None)
    collate = Collate(
        {"image": Use(("image",), encode), "text": Use(("report",), TextEncode(tokenizer, 8, view=view))},
        targets=("x",), keys=("subject", "text", "site"),
    )  # fmt: skip
    held = InMemory.of(people, collate, mix_by="site")
    for epoch in range(3):
        for ids in (["r3", "r0", "r2"], ["r4", "r2"], [f"r{i}" for i in range(6)]):
            one, two = held.batch(ids, epoch), collate([people[int(i[1])] for i in ids], epoch)
            assert one.ids == two.ids
            for name in two.fields:
                for left, right in zip(
                    (one.fields[name].values, one.fields[name].valid, one.fields[name].mask),
                    (two.fields[name].values, two.fields[name].valid, two.fields[name].mask), strict=True,
                ):  # fmt: skip
                    assert (left is None) == (right is None)
                    if left is not None:
                        assert torch.equal(left, right), name
            for what in ("targets", "known", "keys"):
                assert getattr(one, what).keys() == getattr(two, what).keys()
                for name, tensor in getattr(two, what).items():
                    assert torch.equal(getattr(one, what)[name], tensor), name
    assert {k: len(v) for k, v in held.groups("site").items()} == {"0": 3, "1": 3}
