"""A local language model: a tiny one with random weights, saved and loaded; scores checked by hand."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from fabrica.chat import LocalChat, Request, user
from fabrica.errors import Refused, UsageError
from fabrica.types import ChatModel, Item, Message, Origin

torch = pytest.importorskip("torch")
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
WORDS = ["<pad>", "<unk>", "<end>", "<system>", "<user>", "<assistant>", *[f"w{n}" for n in range(58)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny-llama")
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<end>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, eos_token_id=2, pad_token_id=0, bos_token_id=None,
        initializer_range=0.4,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_it_answers_the_same_alone_and_in_a_batch(folder: Path) -> None:
    model = LocalChat(folder, batch=3)
    assert isinstance(model, ChatModel)
    requests = [Request(user(" ".join(f"w{k}" for k in range(n + 1))), max_tokens=4 + n % 2) for n in range(7)]
    batched = model.answers(requests)
    for request, reply in zip(requests, batched, strict=True):
        alone = model.answer(request)
        assert (alone.text, alone.tokens_in, alone.tokens_out) == (reply.text, reply.tokens_in, reply.tokens_out)
        assert [t for t, _ in alone.logprobs or ()] == [t for t, _ in reply.logprobs or ()]
        assert [v for _, v in alone.logprobs or ()] == pytest.approx([v for _, v in reply.logprobs or ()], abs=1e-4)
        assert 0 < reply.tokens_out <= request.max_tokens
    assert len({r.text for r in batched}) > 1


def test_scores_are_log_probabilities_of_the_answer(folder: Path) -> None:
    """Against the product of next-token probabilities taken one at a time; all one-token answers sum to one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = LocalChat(folder, batch=2)
    messages = user("w3 w4", system="w1")
    answers = ["w5 w6 w7", "w8", "w9 w10"]
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    start = tokenizer("<system> w1 <end> <user> w3 w4 <end> <assistant>")["input_ids"]
    expected = []
    for answer in answers:
        ids, total = list(start), 0.0
        for token in tokenizer(answer)["input_ids"]:
            with torch.no_grad():
                total += float(plain(torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token])
            ids.append(token)
        expected.append(total)
    assert model.score(messages, answers) == pytest.approx(expected, abs=1e-4)
    assert sum(map(math.exp, model.score(messages, WORDS))) == pytest.approx(1, abs=1e-4)
    with pytest.raises(UsageError):
        model.score(messages, ["w1", ""])


def test_greedy_log_probabilities_agree_with_scores(folder: Path) -> None:
    model = LocalChat(folder)
    replies = {n: model(user(f"w{n}"), max_tokens=3) for n in range(8)}
    spoken = {n: r.logprobs for n, r in replies.items() if r.logprobs}
    assert spoken
    for n, pairs in spoken.items():
        text = " ".join(t for t, _ in pairs)
        assert model.score(user(f"w{n}"), [text])[0] == pytest.approx(sum(v for _, v in pairs), abs=1e-3)


def test_drawing_is_seeded_and_leaves_the_global_generator_alone(folder: Path) -> None:
    model = LocalChat(folder)
    before = torch.random.get_rng_state()
    texts = [model(user("w1"), temperature=2.0, seed=seed, max_tokens=8).text for seed in (0, 1, 2, 0)]
    assert texts[0] == texts[3]
    assert len(set(texts)) > 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_names_follow_the_weights_and_it_can_be_pickled(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = LocalChat(folder)
    assert pickle.loads(pickle.dumps(model)).name == model.name
    other = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        other.lm_head.weight.add_(1e-3)
    other.save_pretrained(tmp_path / folder.name)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / folder.name)
    assert LocalChat(tmp_path / folder.name).name != model.name


def test_what_it_cannot_do_it_says(folder: Path, tmp_path: Path) -> None:
    model = LocalChat(folder)
    picture = Item("image", np.zeros((4, 4), np.uint8), Origin("made", "a", "", ""))
    with pytest.raises(UsageError, match="reads text alone"):
        model((Message("user", ("look", picture)),))
    with pytest.raises(UsageError, match="reads 128"):
        model(user("w1"), max_tokens=500)
    with pytest.raises(UsageError, match="no such folder"):
        LocalChat("no-such-model")(user("w1"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(Refused, match="safetensors"):
        LocalChat(tmp_path)(user("w1"))
