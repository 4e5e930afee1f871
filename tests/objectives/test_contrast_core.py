"""The contrast core against plain references, row by row of the table of systems (float64, 1e-6 and better)."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fabrica.errors import UsageError
from fabrica.objectives.contrast import contrast, log_sigmoid_pairs, pair_contrast, sigmoid_contrast
from fabrica.objectives.streaming import Cells, logsumexp

TOL = {"rtol": 1e-9, "atol": 1e-9}


def units(n: int, d: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def plain(a, b, s, weights=(0.5, 0.5), positives=None, exclude=None):
    """The definition, cell by cell of the matrix, with no help from the code under test."""
    S = s * a @ b.T
    n, c = S.shape
    P = torch.eye(n, c, dtype=torch.bool) if positives is None else positives[:n, None] == positives[None]
    drop = torch.zeros_like(P) if exclude is None else (exclude[:n, None] == exclude[None]) & ~P
    drop &= ~torch.eye(n, c, dtype=torch.bool)
    total = 0.0
    for w, scores, pos, out in ((weights[0], S, P, drop), (weights[1], S.T, P.T, drop.T)):
        rows = []
        for i in range(len(scores)):
            if not pos[i].any():
                continue
            logits = [scores[i, j] for j in range(scores.shape[1]) if not out[i, j]]
            below = torch.logsumexp(torch.stack(logits), 0)
            rows.append(sum(below - scores[i, j] for j in range(scores.shape[1]) if pos[i, j]) / pos[i].sum())
        total = total + w * sum(rows) / len(rows)
    return total


def gradients(f, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = f(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves)


def same(f, g, *inputs):
    """Equal value and equal gradients of every input."""
    (x, dx), (y, dy) = gradients(f, *inputs), gradients(g, *inputs)
    torch.testing.assert_close(x, y, **TOL)
    for left, right in zip(dx, dy, strict=True):
        torch.testing.assert_close(left, right, **TOL)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 9), extra=st.integers(0, 3), chunk=st.integers(1, 10), seed=st.integers(0, 99),
    scale=st.floats(0.1, 30), w=st.floats(0, 1), keyed=st.booleans(), excluding=st.booleans(),
)  # fmt: skip
def test_equals_the_definition_at_any_shape_chunk_keys_and_weights(n, extra, chunk, seed, scale, w, keyed, excluding):
    a, b = units(n, 5, seed), units(n + extra, 5, seed + 1)
    g = torch.Generator().manual_seed(seed)
    keys = torch.randint(0, n, (n + extra,), generator=g) if keyed else None
    apart = torch.randint(0, n, (n + extra,), generator=g) if excluding else None
    s = torch.tensor(scale, dtype=torch.float64)
    weights = (w, 1 - w)
    same(
        lambda a, b, s: pair_contrast(a, b, s, weights=weights, positives=keys, exclude=apart, chunk=chunk),
        lambda a, b, s: plain(a, b, s, weights, keys, apart),
        a, b, s,
    )  # fmt: skip


def test_s84_weights_are_asymmetric_and_lambda_one_is_the_row_wise_cross_entropy():
    a, b, s = units(12, 8, 0), units(12, 8, 1), torch.tensor(10.0, dtype=torch.float64)
    t = torch.arange(12)
    rows = lambda a, b, s: F.cross_entropy(s * a @ b.T, t)  # noqa: E731
    cols = lambda a, b, s: F.cross_entropy(s * b @ a.T, t)  # noqa: E731
    same(lambda a, b, s: pair_contrast(a, b, s, weights=(1.0, 0.0)), rows, a, b, s)
    same(lambda a, b, s: pair_contrast(a, b, s, weights=(0.0, 1.0)), cols, a, b, s)
    mixed = lambda a, b, s: 0.75 * rows(a, b, s) + 0.25 * cols(a, b, s)  # noqa: E731
    same(lambda a, b, s: pair_contrast(a, b, s, weights=(0.75, 0.25)), mixed, a, b, s)
    assert abs(rows(a, b, s) - cols(a, b, s)) > 1e-3


def test_s31_s01_clip_with_a_learned_scale():
    a, b, t = units(16, 8, 2), units(16, 8, 3), torch.tensor(math.log(1 / 0.07), dtype=torch.float64)
    i = torch.arange(16)

    def reference(a, b, t):
        logits = t.exp() * a @ b.T
        return 0.5 * (F.cross_entropy(logits, i) + F.cross_entropy(logits.T, i))

    same(lambda a, b, t: pair_contrast(a, b, t.exp(), chunk=5), reference, a, b, t)


def test_s73_same_key_positives_average_over_the_group():
    """UniCL (Yang et al. 2022, eq. 1-3): -1/|P(i)| sum over P(i) of the log-softmax; all keys unique is CLIP."""
    a, b, keys = units(6, 4, 4), units(6, 4, 5), torch.tensor([7, 7, 7, 3, 3, 9])
    P = (keys[:, None] == keys).double()

    def reference(a, b):
        logits = 5 * a @ b.T
        one = -(P * logits.log_softmax(1)).sum(1) / P.sum(1)
        two = -(P * logits.T.log_softmax(1)).sum(1) / P.sum(1)
        return 0.5 * (one.mean() + two.mean())

    same(lambda a, b: pair_contrast(a, b, 5.0, positives=keys, chunk=4), reference, a, b)
    same(lambda a, b: pair_contrast(a, b, 5.0, positives=torch.arange(6)), lambda a, b: pair_contrast(a, b, 5.0), a, b)


def test_s84_exclude_masks_false_negatives_out_of_both_denominators():
    a, b, study = units(5, 4, 6), units(5, 4, 7), torch.tensor([1, 1, 2, 3, 2])
    out = (study[:, None] == study) & ~torch.eye(5, dtype=torch.bool)

    def reference(a, b):
        logits, i = (10 * a @ b.T).masked_fill(out, -math.inf), torch.arange(5)
        return 0.5 * (F.cross_entropy(logits, i) + F.cross_entropy(logits.T, i))

    same(lambda a, b: pair_contrast(a, b, 10.0, exclude=study, chunk=2), reference, a, b)


def test_positives_win_over_exclusion():
    a, b, key = units(4, 3, 8), units(4, 3, 9), torch.tensor([1, 1, 2, 3])
    same(
        lambda a, b: pair_contrast(a, b, 3.0, positives=key, exclude=key),
        lambda a, b: pair_contrast(a, b, 3.0, positives=key), a, b,
    )  # fmt: skip


def test_s53_own_hard_negatives_one_way():
    """mmE5: each hard negative counts only against its own query."""
    q, d, hard = units(4, 6, 10), units(4, 6, 11), units(8, 6, 12).reshape(4, 2, 6)

    def reference(q, d, hard):
        own = torch.einsum("id,ikd->ik", q, hard)
        return F.cross_entropy(torch.cat([q @ d.T, own], 1) / 0.02, torch.arange(4))

    def ours(q, d, hard):
        scores = torch.cat([q @ d.T, q @ hard.reshape(8, 6).T], 1) / 0.02
        foreign = torch.arange(4)[:, None] != torch.arange(8) // 2
        return contrast(scores, torch.arange(4), torch.cat([torch.zeros(4, 4, dtype=torch.bool), foreign], 1))

    same(ours, reference, q, d, hard)


def test_shared_hard_negatives_extend_the_candidates():
    q, d, hard = units(4, 6, 13), units(4, 6, 14), units(3, 6, 15)
    same(
        lambda q, d, h: pair_contrast(q, torch.cat([d, h]), 50.0, weights=(1.0, 0.0), chunk=3),
        lambda q, d, h: F.cross_entropy(50 * q @ torch.cat([d, h]).T, torch.arange(4)), q, d, hard,
    )  # fmt: skip


def test_s66_max_over_regions_per_attribute():
    """Stage 1: an attribute scores with an image by its best region; the images that have it are positive."""
    attributes, regions = units(3, 5, 16), units(12, 5, 17).reshape(4, 3, 5)
    has = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])  # the last attribute is nowhere: it says nothing

    def reference(attributes, regions):
        scores = torch.einsum("ad,ird->air", attributes, regions).amax(2) / 0.07
        logs = scores.log_softmax(1)
        return -((logs[0, 0] + logs[0, 1]) / 2 + logs[1, 3]) / 2

    same(
        lambda a, r: contrast(torch.einsum("ad,ird->air", a, r).amax(2) / 0.07, has), reference, attributes, regions
    )  # fmt: skip


def test_s03_saliency_weights_rows():
    words, patches, saliency = units(5, 4, 18), units(5, 4, 19), torch.tensor([0.5, 0.1, 0.2, 0.2, 0.0]).double()

    def reference(w, p):
        return (saliency * F.cross_entropy(w @ p.T / 0.1, torch.arange(5), reduction="none")).sum() / saliency.sum()

    same(lambda w, p: contrast(w @ p.T / 0.1, torch.arange(5), row_weights=saliency), reference, words, patches)
    same(
        lambda w, p: pair_contrast(w, p, 10.0, weights=(1.0, 0.0), row_weights=saliency), reference, words, patches
    )  # fmt: skip


def test_s25_s30_equal_directions_of_any_scores():
    scores = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.arange(6)
    same(
        lambda s: 0.5 * (contrast(s, t) + contrast(s.T, t)),
        lambda s: 0.5 * (F.cross_entropy(s, t) + F.cross_entropy(s.T, t)), scores,
    )  # fmt: skip


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("excluding", [False, True])
def test_siglip_equals_the_matrix_form(keyed, excluding):
    a, b = units(7, 4, 20), units(9, 4, 21)
    keys = torch.tensor([1, 1, 2, 3, 4, 5, 6, 2, 9]) if keyed else None
    apart = torch.tensor([1, 2, 2, 2, 4, 4, 6, 2, 6]) if excluding else None
    P = torch.eye(7, 9, dtype=torch.bool) if keys is None else keys[:7, None] == keys
    out = torch.zeros(7, 9, dtype=torch.bool) if apart is None else (apart[:7, None] == apart) & ~P
    out &= ~torch.eye(7, 9, dtype=torch.bool)

    def reference(a, b, s, bias):
        z = torch.where(P, 1.0, -1.0).double()
        return -(F.logsigmoid(z * (s * a @ b.T + bias)) * ~out).sum() / 7

    s, bias = torch.tensor(10.0, dtype=torch.float64), torch.tensor(-10.0, dtype=torch.float64)
    same(
        lambda a, b, s, bias: sigmoid_contrast(a, b, s, bias, positives=keys, exclude=apart, chunk=3),
        reference, a, b, s, bias,
    )  # fmt: skip
    if not excluding:
        same(lambda a, b: log_sigmoid_pairs(10 * a @ b.T - 10, P), lambda a, b: reference(a, b, s, bias), a, b)


def test_identical_embeddings_give_log_n():
    rows = F.normalize(torch.ones(50, 8), dim=1)
    assert pair_contrast(rows, rows, 14.0).item() == pytest.approx(math.log(50), abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
def test_float32_stays_exact_where_exponentials_underflow(scale):
    """Rows of very different norms: log-sums hundreds of nats under the largest score, in float32, against float64."""
    a, b = units(40, 16, 22), units(40, 16, 23)
    a = a * torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
    for left, right in ((a, b), (b, a), (b, b * torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None])):
        f = lambda x, y: pair_contrast(x, y, scale, chunk=7)  # noqa: E731
        exact, d_exact = gradients(f, left, right)
        value, grads = gradients(f, left.float(), right.float())
        assert value.item() == pytest.approx(exact.item(), rel=2e-6, abs=2e-6)
        reference = gradients(lambda x, y: plain(x, y, scale), left, right)
        torch.testing.assert_close(exact, reference[0], rtol=1e-8, atol=1e-8)
        for g, e in zip(grads, d_exact, strict=True):
            torch.testing.assert_close(g.double(), e, rtol=1e-3, atol=2e-5 * float(e.abs().max()))


def test_a_row_without_cells_is_minus_infinity_and_passes_no_gradient():
    a, b = units(3, 4, 24).requires_grad_(), units(3, 4, 25).requires_grad_()
    key = torch.tensor([1, 2, 3]), torch.tensor([1, 1, 1])
    rows, _ = logsumexp(a, b, Cells(exclude=key, diagonal=True), chunk=2)
    assert rows[0] == -math.inf
    assert torch.isfinite(rows[1:]).all()
    torch.logaddexp(rows, torch.zeros(3, dtype=torch.float64)).sum().backward()
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()
    assert (a.grad[0] == 0).all()
    assert (a.grad[1] != 0).any()


def test_half_precision_inputs_are_summed_in_float32():
    a, b = units(64, 16, 26), units(64, 16, 27)
    low = pair_contrast(a.bfloat16(), b.bfloat16(), 14.0)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(
        pair_contrast(a.bfloat16().double(), b.bfloat16().double(), 14.0).item(), rel=1e-5
    )


def test_gradcheck():
    a, b = units(5, 3, 28).requires_grad_(), units(6, 3, 29).requires_grad_()
    s, bias = torch.tensor(2.0, dtype=torch.float64, requires_grad=True), torch.tensor(-1.0, dtype=torch.float64)
    keys = torch.tensor([1, 1, 2, 3, 3, 2])
    torch.autograd.gradcheck(
        lambda a, b, s: pair_contrast(a, b, s, positives=keys, exclude=keys % 2, chunk=2), (a, b, s)
    )
    torch.autograd.gradcheck(
        lambda a, b, s, c: sigmoid_contrast(a, b, s, c, positives=keys, chunk=2), (a, b, s, bias.requires_grad_())
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pair_contrast(torch.ones(1, 2), torch.ones(1, 2)), "contrastive loss needs at least 2 pairs, got 1"),
        (lambda: pair_contrast(torch.ones(3, 2), torch.ones(3, 4)), r"anchors \(3, 2\) and candidates \(3, 4\)"),
        (lambda: pair_contrast(torch.ones(3, 2), torch.ones(2, 2)), r"\(3, 2\) and candidates \(2, 2\)"),
        (lambda: pair_contrast(torch.ones(2, 2), torch.ones(2, 2), weights=(0.0, 0.0)), "direction weights"),
        (lambda: pair_contrast(torch.ones(2, 2), torch.ones(2, 2), positives=torch.ones(3)), "2 anchors and 2"),
        (lambda: pair_contrast(torch.ones(2, 2), torch.ones(2, 2), chunk=0), "chunk 0"),
        (lambda: contrast(torch.ones(2, 3), torch.zeros(2, 3)), "no row has a positive"),
        (
            lambda: contrast(torch.ones(2, 3), torch.zeros(3, dtype=torch.int64)),
            r"scores \(2, 3\) and positives \(3,\)",
        ),
    ],
)
def test_errors_say_what_came_and_what_was_wanted(call, message):
    with pytest.raises(UsageError, match=message):
        call()
