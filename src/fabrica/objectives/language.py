"""Next-token loss of answers after their prompts: causal language modelling, instruction tuning, prompt tuning."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.types import Batch, Field, Loss


@dataclass(slots=True)
class NextToken:
    """Mean over the answers' tokens of -log p(token | prompt, tokens before it); prompts are read and not learned.

    A record without a prompt is a plain text: all of it is learned, after a beginning token (`begin`). A record without
    an answer contributes nothing. `task` names the target with the row's task for models that adapt by task; `soft`
    False reads without the model's soft prompt.
    """

    begin: int
    prompt: str = "prompt"
    answer: str = "answer"
    task: str = ""
    soft: bool = True
    reads: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.prompt, self.answer, *([self.task] if self.task else []))

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        ids, mask, learn = joined(batch.fields[self.prompt], batch.fields[self.answer], self.begin)
        count = int(learn[:, 1:].sum())
        if count == 0:
            return Loss(torch.zeros((), device=ids.device), {}, 0)
        task = None if not self.task else batch.targets[self.task].long()
        if task is not None and not bool(batch.known[self.task].all()):
            lost = [i for i, known in zip(batch.ids, batch.known[self.task].tolist(), strict=True) if not known]
            raise UsageError(f"records {', '.join(lost[:4])} have no label {self.task!r}, which says their task")
        logits = model(ids, mask, task, soft=self.soft)[:, :-1]
        wanted = ids[:, 1:].masked_fill(~learn[:, 1:], -100)
        loss = functional.cross_entropy(logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=-100)
        return Loss(loss, {"perplexity": float(loss.detach().exp())}, count)


def joined(prompt: Field, answer: Field, begin: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt and answer of each record in one row, padded on the right: ids (B, L), mask (B, L), learn (B, L) which are
    the answer's. Rows without a prompt begin with the token `begin`.

    >>> def field(rows, here):
    ...     rows = torch.tensor(rows)[:, None]
    ...     return Field(rows, torch.tensor(here)[:, None], mask=rows > 0)
    >>> ids, mask, learn = joined(field([[5, 6], [0, 0]], [True, False]), field([[7, 0], [8, 9]], [True, True]), 1)
    >>> ids.tolist(), learn.tolist()
    ([[5, 6, 7], [1, 8, 9]], [[False, False, True], [False, True, True]])
    """
    assert prompt.mask is not None
    assert answer.mask is not None
    first, seen = prompt.values[:, 0].clone(), prompt.mask[:, 0].clone()
    bare = ~seen.any(1)
    first[bare, 0], seen[bare, 0] = begin, True
    said = answer.mask[:, 0]
    ids = torch.cat([first, answer.values[:, 0]], 1)
    mask = torch.cat([seen, said], 1)
    learn = torch.cat([torch.zeros_like(seen), said], 1)
    order = (~mask).int().argsort(dim=1, stable=True)  # real tokens first, in their order
    ids, mask, learn = (t.gather(1, order) for t in (ids, mask, learn))
    most = int(mask.sum(1).max())
    return ids[:, :most].masked_fill(~mask[:, :most], 0), mask[:, :most], learn[:, :most]
