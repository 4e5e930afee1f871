"""A language model and its adapters: likelihoods by hand, greedy by full forwards, frozen parts and folders."""

import json

import numpy as np
import pytest
import torch

from fabrica.chat import LocalChat, user
from fabrica.errors import Refused, UsageError
from fabrica.models.adapt import Lora
from fabrica.models.cpoly import CPoly, CPolyLinear, cpoly_parameters
from fabrica.models.language import LanguageModel, SoftPrompt
from fabrica.models.language_bundle import LanguageBundle, language
from fabrica.models.load import load
from fabrica.objectives.language import NextToken
from fabrica.train import fit
from fabrica.types import Item, Origin, Record, Schedule, Stage

ORIGIN = Origin("made", "a", "", "CC0-1.0", "synthetic")
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def turn(i, prompt, answer, **labels):
    items = {"prompt": (Item("text", prompt, ORIGIN),), "answer": (Item("text", answer, ORIGIN),)}
    return Record(f"r{i}", f"r{i}", items=items, labels=labels)


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    return [turn(i, f"after {w}", str(rng.choice(WORDS)), task=float(i % 3)) for i, w in enumerate(WORDS * 4)]


def built(records, **adapter):
    torch.manual_seed(0)
    targets = ("task",) if "cpoly" in adapter else ()
    model, collate = language("small", records, lengths=(12, 8), width=32, depth=2, targets=targets, **adapter)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3.0)  # so that likelihoods differ
    return LanguageBundle(model, collate)


def stage(bundle, scale, *, steps=6, lr=1e-2, task=""):
    plan = Schedule(steps, 12, lr, lr_scale=scale)
    return Stage("s", bundle.collate, {"next": NextToken(2, task=task)}, plan)


def test_likelihoods_are_sums_of_next_token_probabilities_and_blind_to_the_batch(records):
    bundle = built(records)
    prompts, answers = ["after one", "after one two three"], ["two", "four five six"]
    made = bundle.likelihoods(prompts, answers, batch=8)
    np.testing.assert_allclose(made, bundle.likelihoods(prompts, answers, batch=1), atol=1e-4)
    words = {n: bundle.collate.fields[n].encode for n in ("prompt", "answer")}
    for i, p in enumerate(prompts):
        for j, a in enumerate(answers):
            ids, total = words["prompt"].ids(p).tolist(), 0.0
            for token in words["answer"].ids(a).tolist():
                given = torch.tensor([ids])
                with torch.no_grad():
                    total += float(bundle.model(given, torch.ones_like(given).bool())[0, -1].log_softmax(-1)[token])
                ids.append(token)
            assert made[i, j] == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("adapter", [{}, {"prompt": SoftPrompt(3, 0.5)}, {"lora": Lora(2, 4.0, 0)}])
def test_greedy_answers_equal_full_forwards(records, adapter):
    bundle = built(records, **adapter)
    words = bundle.collate.fields["prompt"].encode
    prompts = ["after one", "after two", "after three four five"]
    said = bundle.complete(prompts, most=5)
    assert said == bundle.complete(prompts, most=5, batch=1)
    for prompt, text in zip(prompts, said, strict=True):
        ids = words.ids(prompt).tolist()
        new = []
        while len(new) < 5:
            given = torch.tensor([ids + new])
            with torch.no_grad():
                token = int(bundle.model(given, torch.ones_like(given).bool())[0, -1].argmax())
            if token == bundle._end:
                break
            new.append(token)
        assert words.tokenizer.decode(new) == text


@pytest.mark.parametrize(
    "adapter", [{}, {"prompt": SoftPrompt(3, 0.5)}, {"lora": Lora(2, 4.0, 0)}, {"cpoly": CPoly(("a", "b", "c"))}]
)
def test_a_folder_holds_the_base_and_the_adapter(records, adapter, tmp_path):
    bundle = built(records, **adapter)
    other = load(bundle.save_pretrained(tmp_path / "model"))
    assert isinstance(other, LanguageBundle)
    task = 1 if "cpoly" in adapter else None
    np.testing.assert_allclose(
        other.likelihoods(["after one"], WORDS, task=task),
        bundle.likelihoods(["after one"], WORDS, task=task),
        atol=1e-4,
    )
    assert other.fingerprint == bundle.fingerprint
    assert (tmp_path / "model" / "adapter.safetensors").exists() == bool(adapter)


def test_a_soft_prompt_moves_nothing_else_and_is_all_that_is_saved(records, tmp_path):
    bundle = built(records, prompt=SoftPrompt(5, 0.5))
    before, start = bundle.base_hash, bundle.model.adapter_state()["prompt.embedding.weight"].clone()
    assert start.shape == (5, 32)
    assert float(start.abs().max()) <= 1.5, "U(-0.5, 0.5), then times three as all weights here"
    fit(bundle, [stage(bundle, bundle.model.adapter_only())], records, tmp_path / "t", save_every=0)
    assert bundle.base_hash == before
    assert all(p.grad is None for n, p in bundle.model.named_parameters() if not n.startswith("prompt."))
    assert not torch.equal(bundle.model.adapter_state()["prompt.embedding.weight"], start)
    from safetensors.torch import load_file

    held = load_file(bundle.save_adapter(tmp_path / "prompt.safetensors"))
    assert sum(t.numel() for t in held.values()) == 5 * 32
    fresh = built(records, prompt=SoftPrompt(5, 0.5))
    fresh.load_adapter(tmp_path / "prompt.safetensors")
    assert fresh.fingerprint == bundle.fingerprint
    with torch.no_grad():
        next(iter(fresh.model.lm.parameters())).add_(1e-3)
    with pytest.raises(Refused, match="base_changed"):
        fresh.load_adapter(tmp_path / "prompt.safetensors")


def test_the_soft_prompt_reads_as_peft_does(records):
    import peft

    bundle = built(records, prompt=SoftPrompt(4, 0.5))
    ids = torch.from_numpy(bundle.collate.fields["prompt"].encode.ids("after one two"))[None]
    mask = torch.ones_like(ids)
    with torch.no_grad():
        ours = bundle.model(ids, mask.bool())
        config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
        theirs = peft.get_peft_model(bundle.model.lm, config).eval()
        theirs.prompt_encoder["default"].embedding.weight.copy_(bundle.model.prompt.embedding.weight)
        expected = theirs(input_ids=ids, attention_mask=mask).logits[:, 4:]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_low_rank_adapters_merge_into_a_model_that_any_chat_can_load(records, tmp_path):
    bundle = built(records, lora=Lora(2, 4.0, 0))
    plain = built(records)
    prompts = ["after one", "after five"]
    np.testing.assert_allclose(
        bundle.model.base_state()["lm_head.weight"], bundle.model.base_state()["model.embed_tokens.weight"]
    )
    fit(bundle, [stage(bundle, bundle.model.adapter_only(), lr=0.1)], records, tmp_path / "t", save_every=0)
    chat = LocalChat(bundle.merged(tmp_path / "merged"))
    logs = bundle.likelihoods(prompts, WORDS)
    assert np.abs(logs - plain.likelihoods(prompts, WORDS)).max() > 1e-2, "the adapter changed something"
    end = [f"{w} [SEP]" for w in WORDS]
    for prompt, row in zip(prompts, logs, strict=True):
        np.testing.assert_allclose(chat.score(user(f"[CLS] {prompt}"), end), row, atol=1e-3)
    with pytest.raises(UsageError, match="cannot be merged"):
        built(records, prompt=SoftPrompt(2)).merged(tmp_path / "no")


def skills(bundle):
    return [m for m in bundle.model.modules() if isinstance(m, CPolyLinear)]


def test_shared_skills_learn_from_all_tasks_private_ones_from_their_own(records):
    bundle = built(records, cpoly=CPoly(("a", "b", "c"), shared=2, private=1, rank=2))
    loss = NextToken(2, task="task")
    for task in range(3):
        bundle.model.zero_grad()
        loss(bundle.model, bundle.collate([r for r in records if r.labels["task"] == task], 0)).total.backward()
        for layer in skills(bundle):
            assert layer.cpoly_b.grad.abs().sum() > 0
            private = layer.cpoly_private_b.grad.abs().sum((1, 2, 3))
            assert [bool(v > 0) for v in private] == [t == task for t in range(3)]


def test_an_unknown_task_is_an_error_and_so_is_none(records):
    bundle = built(records, cpoly=CPoly(("a", "b", "c")))
    ids = torch.tensor([[2, 6]])
    with pytest.raises(UsageError, match=r"task \[3\] of rows; the adapter knows 0 'a', 1 'b', 2 'c'"):
        bundle.model(ids, torch.ones_like(ids).bool(), torch.tensor([3]))
    with pytest.raises(UsageError, match="the task of every row"):
        bundle.model(ids, torch.ones_like(ids).bool())
    with pytest.raises(UsageError, match="different names"):
        CPoly(("a", "a"))


def test_skills_change_nothing_at_the_start_and_tasks_part_when_trained(records, tmp_path):
    settings = CPoly(("a", "b", "c"), shared=2, private=1, rank=2)
    bundle = built(records, cpoly=settings)
    with torch.no_grad():
        for layer in skills(bundle):
            layer.cpoly_b.zero_()
    rows = [bundle.likelihoods(["after one"], WORDS, task=t) for t in range(3)]
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-5)
    before = bundle.base_hash
    plan = stage(bundle, bundle.model.adapter_only(), steps=8, lr=5e-2, task="task")
    fit(bundle, [plan], records, tmp_path, save_every=0)
    assert bundle.base_hash == before
    rows = [bundle.likelihoods(["after one"], WORDS, task=t) for t in range(3)]
    assert np.abs(rows[0] - rows[2]).max() > 1e-3
    layer = skills(bundle)[0]
    assert sum(p.numel() for n, p in layer.named_parameters() if "cpoly" in n) == cpoly_parameters(
        layer.base_layer.in_features, layer.base_layer.out_features, settings
    )


def test_what_does_not_fit_is_said_before_training(records, tmp_path):
    with pytest.raises(UsageError, match="one adapter at a time"):
        LanguageModel({"model_type": "llama"}, lora=Lora(), prompt=SoftPrompt())
    with pytest.raises(UsageError, match="no adapter to train"):
        built(records).model.adapter_only()
    folder = built(records).save_pretrained(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "language"}))
    with pytest.raises(UsageError, match="format 1"):
        LanguageBundle.from_pretrained(folder)


def test_perplexity_counts_what_it_is_told_to(records):
    bundle = built(records)
    texts = ["one two three four"]
    words = bundle.collate.fields["answer"].encode
    ids = [bundle._begin, *words.ids(texts[0]).tolist()]
    given = torch.tensor([ids])
    with torch.no_grad():
        logs = bundle.model(given, torch.ones_like(given).bool())[0].log_softmax(-1)
    each = [float(logs[i, ids[i + 1]]) for i in range(len(ids) - 1)]
    assert bundle.perplexity(texts) == pytest.approx(np.exp(-np.mean(each)), rel=1e-4)
    assert bundle.perplexity(texts, skip=2) == pytest.approx(np.exp(-np.mean(each[2:])), rel=1e-4)
