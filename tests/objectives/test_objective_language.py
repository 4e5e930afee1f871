"""Next-token loss: by hand, blind to padding and prompts, empty where nothing can be learned."""

import pytest
import torch
from torch import nn

from fabrica.errors import UsageError
from fabrica.objectives.language import NextToken, joined
from fabrica.types import Batch, Field


class Table(nn.Module):
    """Logits of the next token from the present one alone."""

    def __init__(self, size: int = 12) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(size, size, generator=torch.Generator().manual_seed(0)))

    def forward(self, ids, mask, task=None, *, soft=True):
        return self.logits[ids]


def field(rows, width=None):
    width = width or max(map(len, rows), default=1) or 1
    ids = torch.tensor([r + [0] * (width - len(r)) for r in rows])[:, None]
    mask = torch.tensor([[i < len(r) for i in range(width)] for r in rows])[:, None]
    return Field(ids, torch.tensor([[len(r) > 0] for r in rows]), mask=mask)


def batch(prompts, answers, **targets):
    ids = tuple(str(i) for i in range(len(prompts)))
    fields = {"prompt": field(prompts, 5), "answer": field(answers, 4)}
    known = {n: torch.ones(len(ids), dtype=torch.bool) for n in targets}
    return Batch(ids, fields, {n: torch.tensor(v) for n, v in targets.items()}, known)


def test_the_loss_is_the_mean_over_answer_tokens():
    model = Table()
    logs = model.logits.log_softmax(-1)
    loss = NextToken(1)(model, batch([[1, 5, 6], [1, 7]], [[8, 9], [3]]))
    expected = -(logs[6, 8] + logs[8, 9] + logs[7, 3]) / 3
    assert loss.count == 3
    assert loss.total.item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_text_without_a_prompt_is_learned_whole():
    model = Table()
    logs = model.logits.log_softmax(-1)
    loss = NextToken(1)(model, batch([[], []], [[8, 9], []]))
    assert loss.count == 2
    assert loss.total.item() == pytest.approx(-(logs[1, 8] + logs[8, 9]).item() / 2, abs=1e-6)
    nothing = NextToken(1)(model, batch([[1, 2]], [[]]))
    assert nothing.count == 0
    assert torch.isfinite(nothing.total)


def test_rows_are_joined_without_gaps_whatever_the_padding():
    a = joined(field([[1, 5]], 5), field([[8, 9]], 7), 1)
    b = joined(field([[1, 5]]), field([[8, 9]]), 1)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert a[0].tolist() == [[1, 5, 8, 9]]


def test_a_task_that_is_not_known_is_named():
    made = batch([[1]], [[2]], task=[0.0])
    unknown = Batch(made.ids, made.fields, made.targets, {"task": torch.tensor([False])})
    assert NextToken(1, task="task").reads == ("prompt", "answer", "task")
    with pytest.raises(UsageError, match="records 0 have no label 'task'"):
        NextToken(1, task="task")(Table(), unknown)
