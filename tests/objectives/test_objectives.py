"""The thin objects: scale, presence, keys, Symile's negatives, what they refuse; each line of the sheets a test."""

import math
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, nn

from fabrica.errors import UsageError
from fabrica.objectives.check import NonFinite
from fabrica.objectives.contrast import pair_contrast
from fabrica.objectives.multilinear import (
    Multilinear,
    candidates,
    multilinear,
    pairwise_scores,
    total_correlation_bound,
    tuple_scores,
)
from fabrica.objectives.pairs import Contrast, duplicate_rate, pairwise
from fabrica.objectives.scale import LogitScale
from fabrica.types import Batch, Contrastive, Field

TOL = {"rtol": 1e-9, "atol": 1e-9}


class Scaled(nn.Module):
    """A model that is only a scale; embeds a field by its values."""

    def __init__(self, scale: LogitScale | None = None) -> None:
        super().__init__()
        self.logit_scale = scale or LogitScale(10.0)

    def embed(self, fields):
        return (
            {n: F.normalize(f.values[:, 0].double(), dim=1) for n, f in fields.items()},
            {n: f.valid.any(1) for n, f in fields.items()},
        )


def gen(seed=0):
    return Generator().manual_seed(seed)


def rows(names, n=6, d=8, seed=0):
    return {
        m: F.normalize(torch.randn(n, d, generator=gen(seed + i), dtype=torch.float64), dim=1)
        for i, m in enumerate(names)
    }


def call(objective, embeddings, presence=MappingProxyType({}), keys=MappingProxyType({}), model=None, seed=0):
    return objective.loss(model or Scaled(), embeddings, presence, keys, gen(seed))


# ------------------------------------------------------------------ scale


def test_scale_clamps_in_place_and_a_frozen_one_keeps_its_key():
    scale = LogitScale(99.0)
    parameter = scale.log_scale
    with torch.no_grad():
        parameter.add_(1.0)
    scale.clamp_()
    assert scale().item() == pytest.approx(100.0, rel=1e-6)
    assert scale.log_scale is parameter
    frozen = LogitScale.of_temperature(0.07, learnable=False)
    assert not frozen.log_scale.requires_grad
    assert frozen.state_dict().keys() == scale.state_dict().keys()
    assert LogitScale(**frozen.settings())().item() == pytest.approx(1 / 0.07)
    assert LogitScale(500.0, max=None).clamp_()().item() == pytest.approx(500.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_above_zero_is_refused(bad):
    with pytest.raises(UsageError, match=r"temperature .* wanted a number above 0"):
        LogitScale.of_temperature(bad)
    with pytest.raises(UsageError, match="above 0"):
        LogitScale(bad)
    with pytest.raises(UsageError, match="above 0"):
        Contrast(("a", "b"), scale=-abs(bad) if bad == bad else bad)


def test_a_frozen_scale_changes_nothing_else():
    e = rows("ab")
    left = {n: r.clone().requires_grad_() for n, r in e.items()}
    right = {n: r.clone().requires_grad_() for n, r in e.items()}
    one = call(Contrast(("a", "b")), left, model=Scaled(LogitScale(10.0, learnable=False)))
    two = call(Contrast(("a", "b")), right, model=Scaled(LogitScale(10.0)))
    one.total.backward()
    two.total.backward()
    torch.testing.assert_close(one.total, two.total)
    for n in e:
        torch.testing.assert_close(left[n].grad, right[n].grad)


# ------------------------------------------------------------------ Contrast


def test_protocol_and_reads():
    for objective in (Contrast(("image", "text"), exclude_by="study"), Multilinear(("a", "b", "c"))):
        assert isinstance(objective, Contrastive)
    assert Contrast(("image", "text"), positives_by="text_key", exclude_by="study").reads == (
        "image", "text", "text_key", "study",
    )  # fmt: skip


def test_call_embeds_and_equals_loss_on_the_embeddings():
    values = {n: torch.randn(5, 1, 4, generator=gen(i)) for i, n in enumerate("ab")}
    valid = torch.tensor([[True], [True], [False], [True], [True]])
    batch = Batch(tuple("vwxyz"), {"a": Field(values["a"], valid), "b": Field(values["b"], torch.ones(5, 1).bool())})
    model = Scaled()
    loss = Contrast(("a", "b"))(model, batch)
    present = valid[:, 0]
    e, _ = model.embed(batch.fields)
    torch.testing.assert_close(loss.total, pair_contrast(e["a"][present], e["b"][present], model.logit_scale()))
    assert loss.count == 4
    assert loss.terms["loss"] == pytest.approx(loss.total.item())
    assert loss.terms["scale"] == pytest.approx(10.0)


def test_absent_rows_equal_a_batch_without_them_and_content_there_changes_nothing():
    e, keep = rows("ab", 7), torch.tensor([1, 1, 0, 1, 0, 1, 1]).bool()
    absent = {"a": keep, "b": torch.ones(7).bool()}
    one = call(Contrast(("a", "b")), e, absent)
    torch.testing.assert_close(one.total, call(Contrast(("a", "b")), {n: r[keep] for n, r in e.items()}).total, **TOL)
    e["a"][2] = 0.0
    assert call(Contrast(("a", "b")), e, absent).total == one.total


def test_s18_pairs_sum_over_the_named_pairs_only():
    e = rows(("ecg", "text", "xray"))
    chosen = Contrast(("text", "xray", "ecg"), pairs=(("text", "xray"), ("text", "ecg")))
    expected = sum(pair_contrast(e["text"], e[m], 10.0) for m in ("xray", "ecg"))
    torch.testing.assert_close(call(chosen, e).total, expected, rtol=1e-6, atol=1e-6)
    every = expected + pair_contrast(e["ecg"], e["xray"], 10.0)
    torch.testing.assert_close(call(pairwise(("ecg", "text", "xray")), e).total, every, rtol=1e-6, atol=1e-6)
    assert set(call(chosen, e).terms) == {"text~xray", "text~ecg", "scale"}


def test_duplicate_rate_is_logged():
    e, key = rows("ab"), torch.tensor([1, 1, 2, 3, 4, 4])
    loss = call(Contrast(("a", "b"), positives_by="text", exclude_by="text"), e, keys={"text": key})
    assert loss.terms["duplicates/text"] == pytest.approx(4 / 6)
    assert duplicate_rate(torch.arange(5)) == 0


def test_sigmoid_form_reads_the_bias():
    e = rows("ab")
    model = Scaled(LogitScale(10.0, bias=-10.0))
    loss = call(Contrast(("a", "b"), form="sigmoid"), e, model=model)
    z = 2 * torch.eye(6).double() - 1
    torch.testing.assert_close(
        loss.total, -F.logsigmoid(z * (10 * e["a"] @ e["b"].T - 10)).sum() / 6, rtol=1e-6, atol=0
    )
    loss.total.backward()
    assert model.logit_scale.bias.grad.abs() > 0


def test_too_few_pairs_raise_or_are_skipped_by_choice():
    with pytest.raises(UsageError, match="contrastive loss needs at least 2 pairs, got a batch of 1"):
        call(Contrast(("a", "b")), rows("ab", 1))
    one = {"a": torch.tensor([True, False, False])}
    with pytest.raises(UsageError, match=r"at least 2 pairs; 1 of 3 rows have both 'a' and 'b'"):
        call(Contrast(("a", "b")), rows("ab", 3), one)
    skipped = call(Contrast(("a", "b"), too_few="skip"), rows("ab", 3), one)
    assert skipped.count == 0
    assert skipped.total == 0


@pytest.mark.parametrize("objective", [Contrast(("a", "b")), Multilinear(("a", "b"))])
def test_shapes_and_non_finite_rows_are_named(objective):
    e = rows("ab")
    with pytest.raises(UsageError, match=r"batch lengths differ: a \(6, 8\), b \(5, 8\)"):
        call(objective, e | {"b": e["b"][:5]})
    with pytest.raises(UsageError, match=r"one width wanted.*a \(6, 8\), b \(6, 3\)"):
        call(objective, e | {"b": e["b"][:, :3]})
    with pytest.raises(UsageError, match="no embedding 'b'"):
        call(objective, {"a": e["a"]})
    with pytest.raises(UsageError, match=r"presence of 'a' has shape \(2,\), wanted \(6,\)"):
        call(objective, e, {"a": torch.ones(2).bool()})
    e["b"][3, 2] = math.nan
    e["b"][5, 0] = math.inf
    with pytest.raises(NonFinite, match=r"'b' hold NaN or infinity in rows 3, 5") as error:
        call(objective, e)
    assert error.value.rows == (3, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Contrast(("a",)), "at least 2 different fields"),
        (lambda: Contrast(("a", "a")), "at least 2 different fields"),
        (lambda: Contrast(("a", "b"), pairs=(("a", "bb"),)), "did you mean 'b'"),
        (lambda: Contrast(("a", "b"), form="softmx"), "did you mean 'softmax'"),
        (lambda: Contrast(("a", "b"), form="sigmoid", weights=(1.0, 0.0)), "no directions"),
        (lambda: Contrast(("a", "b"), weights=(-1.0, 2.0)), "direction weights"),
        (lambda: call(Contrast(("a", "b"), scale="logit_scal"), rows("ab")), "did you mean 'logit_scale'"),
        (lambda: call(Contrast(("a", "b"), exclude_by="study"), rows("ab"), keys={"studi": torch.ones(6)}), "'studi'"),
        (lambda: Multilinear(("a",)), "at least 2 different fields"),
        (lambda: Multilinear(("a", "b"), negatives="many"), "kind of negatives"),
        (lambda: Multilinear(("a", "b"), absent="zero"), "policy for absent"),
        (lambda: Multilinear(tuple("abcd"), negatives="n_squared"), "4 modalities have 8 tuples"),
        (lambda: call(Multilinear(tuple("abcd"), negatives="all"), rows("abcd", 300)), "27,000,000 tuples"),
        (lambda: candidates(16, 4, "n_squared"), "4 modalities have 4,096 tuples"),
    ],
)
def test_wrong_configurations_say_so(make, message):
    with pytest.raises(UsageError, match=message):
        make()


# ------------------------------------------------------------------ Symile


@pytest.mark.parametrize("negatives", ["n", "n_squared", "all"])
def test_two_modalities_are_clip(negatives):
    e = rows("ab", 9)
    left, right = ({n: r.clone().requires_grad_() for n, r in e.items()} for _ in range(2))
    one = call(Multilinear(("a", "b"), negatives=negatives, chunk=4), left).total
    two = call(Contrast(("a", "b")), right).total
    torch.testing.assert_close(one, two, **TOL)
    one.backward()
    two.backward()
    for n in e:
        torch.testing.assert_close(left[n].grad, right[n].grad, **TOL)


def test_three_modalities_against_the_definition_over_all_tuples():
    e, s = rows("abc", 5), 7.0
    leaves = {n: r.clone().requires_grad_() for n, r in e.items()}
    copies = {n: r.clone().requires_grad_() for n, r in e.items()}
    parts = multilinear(leaves, s, gen(), negatives="n_squared", chunk=7)
    total = 0.0
    for m in "abc":
        x, y = (copies[n] for n in "abc" if n != m)
        logits = s * torch.einsum("id,jd,kd->ijk", copies[m], x, y)
        target = torch.arange(5) * 5 + torch.arange(5)
        total = total + F.cross_entropy(logits.reshape(5, 25), target) / 3
    mine = sum(parts.values()) / 3
    torch.testing.assert_close(mine, total, **TOL)
    mine.backward()
    total.backward()
    for n in e:
        torch.testing.assert_close(leaves[n].grad, copies[n].grad, **TOL)


def test_n_negatives_against_the_definition_with_the_same_permutations():
    e, s, n = rows("abc", 8), 5.0, 8
    parts = multilinear(e, s, gen(3), negatives="n", chunk=3)
    g = gen(3)
    for m in "abc":
        others = [e[k] for k in "abc" if k != m]
        p, q = torch.randperm(n, generator=g), torch.randperm(n, generator=g)
        logits = s * e[m] @ (others[0][p] * others[1][q]).T
        true = s * (e[m] * others[0] * others[1]).sum(1)
        logits[torch.arange(n), torch.arange(n)] = true
        for c in range(n):  # a column that is another row's true tuple is no negative of that row
            if p[c] == q[c] and p[c] != c:
                logits[p[c], c] = -math.inf
        torch.testing.assert_close(parts[m], F.cross_entropy(logits, torch.arange(n)), **TOL)


@pytest.mark.parametrize("count", [4, 5])
@pytest.mark.parametrize("negatives", ["n", "all"])
def test_more_modalities_run_and_have_gradients(count, negatives):
    names = tuple("abcde"[:count])
    leaves = {n: r.requires_grad_() for n, r in rows(names, 6).items()}
    loss = call(Multilinear(names, negatives=negatives, chunk=100), leaves)
    loss.total.backward()
    assert all(torch.isfinite(r.grad).all() and (r.grad != 0).any() for r in leaves.values())
    c = candidates(6, count, negatives)
    assert loss.terms["total_correlation_bound"] == pytest.approx(math.log(c) - loss.total.item())


def test_gradcheck_of_enumeration():
    e = [r.requires_grad_() for r in rows("abcd", 3, 2).values()]
    torch.autograd.gradcheck(
        lambda *r: sum(multilinear(dict(zip("abcd", r, strict=True)), 3.0, gen(), negatives="all", chunk=5).values()), e
    )


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
def test_one_hot_rows_go_to_zero_as_the_scale_grows(negatives):
    e = {m: torch.eye(6, dtype=torch.float64) for m in "abc"}
    losses = [call(Multilinear(tuple("abc"), negatives=negatives, scale=s), e).total.item() for s in (1.0, 10.0, 100.0)]
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 1e-9


def test_permutations_differ_between_anchors_and_steps_and_follow_the_generator():
    e = rows("abc", 16)
    objective = Multilinear(tuple("abc"))
    assert call(objective, e, seed=1).total == call(objective, e, seed=1).total
    assert call(objective, e, seed=1).total != call(objective, e, seed=2).total
    alike = dict.fromkeys("abc", e["a"])  # same rows everywhere: anchors differ only by their permutations
    terms = call(objective, alike).terms
    assert len({round(terms[f"anchor/{m}"], 9) for m in "abc"}) == 3
    g = gen(5)
    one = multilinear(e, 10.0, g)
    two = multilinear(e, 10.0, g)  # the next step draws on
    assert one["a"] != two["a"]


def test_order_of_modalities_is_irrelevant():
    e = rows("abc")
    forward = call(Multilinear(("a", "b", "c")), e)
    backward = call(Multilinear(("c", "b", "a")), dict(reversed(e.items())))
    assert forward.total == backward.total


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
def test_flipping_two_signs_changes_nothing_and_one_does(negatives):
    e = rows("abc")
    objective = Multilinear(tuple("abc"), negatives=negatives)
    base = call(objective, e).total
    torch.testing.assert_close(call(objective, e | {"a": -e["a"], "c": -e["c"]}).total, base, **TOL)
    assert abs(call(objective, e | {"a": -e["a"]}).total - base) > 1e-3


def test_all_present_every_policy_is_the_same_and_absence_is_a_choice():
    e, every = rows("abc"), {m: torch.ones(6).bool() for m in "abc"}
    exclude, token = (Multilinear(tuple("abc"), absent=p) for p in ("exclude", "token"))
    assert call(exclude, e, every).total == call(token, e, every).total == call(exclude, e).total
    some = every | {"b": torch.tensor([1, 1, 1, 1, 0, 1]).bool()}
    left = call(exclude, e, some)
    assert left.count == 5
    keep = some["b"]
    torch.testing.assert_close(left.total, call(exclude, {m: r[keep] for m, r in e.items()}).total, **TOL)
    assert call(token, e, some).count == 6
    with pytest.raises(UsageError, match="embeds absent 'b' to zeros"):
        call(token, e | {"b": e["b"] * keep[:, None]}, some)
    nothing = every | {"b": torch.zeros(6).bool()}
    with pytest.raises(UsageError, match="0 of 6 rows have all of a, b, c"):
        call(exclude, e, nothing)
    assert call(Multilinear(tuple("abc"), too_few="skip"), e, nothing).count == 0


def test_total_correlation_bound_is_capped_by_the_candidates():
    """At loss 0 the bound is log C: the most that C candidates can show (Symile, theorem 3.1)."""
    assert total_correlation_bound(0.0, 8) == pytest.approx(math.log(8))
    with pytest.raises(UsageError, match="at least 1"):
        total_correlation_bound(0.0, 0)


def test_scores_of_candidates():
    e, c = rows("ab", 3), {"c": rows("c", 4)["c"]}
    scores = tuple_scores(e, c, tuple("abc"))
    torch.testing.assert_close(scores, torch.einsum("nd,nd,cd->nc", e["a"], e["b"], c["c"]), **TOL)
    torch.testing.assert_close(pairwise_scores(e, c, tuple("abc")), e["a"] @ c["c"].T + e["b"] @ c["c"].T, **TOL)
    for query, given in ((e, {"d": c["c"]}), ({"a": e["a"]}, c), (e | c, c)):
        with pytest.raises(UsageError, match="exactly the one modality that the query lacks"):
            tuple_scores(query, given, tuple("abc"))
    with pytest.raises(UsageError, match="one width"):
        tuple_scores(e, {"c": c["c"][:, :3]}, tuple("abc"))
    with pytest.raises(NonFinite):
        tuple_scores(e, {"c": c["c"] * math.nan}, tuple("abc"))
