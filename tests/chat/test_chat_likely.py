"""Questions ranked in batches: as one at a time, whatever the order, lengths and numbers of options."""

from pathlib import Path

import pytest

from fabrica.chat import LocalChat, Scripted
from fabrica.chat.likely import likeliest
from fabrica.chat.question import Question
from fabrica.chat.strategies import option_likelihood
from fabrica.errors import UsageError

torch = pytest.importorskip("torch")
WORDS = ["<pad>", "<unk>", "<end>", "Answer:", "(A)", "(B)", "(C)", *[f"w{n}" for n in range(40)]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights that tells words apart."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny-llama")
    words = Tokenizer(models.WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<end>",
        chat_template="{% for m in messages %}{{ m.content }} {% endfor %}",
    )  # fmt: skip
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, eos_token_id=2, pad_token_id=0, bos_token_id=None,
        initializer_range=0.4,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def asked() -> list[Question]:
    """Questions of 1 to 12 words with two or three options of one to three words."""
    made = []
    for n in range(7):
        options = ("w1 w2 w3", f"w{n + 4}", "w5 w6")[: 2 + n % 2]
        text = " ".join(f"w{(k * 7 + n) % 40}" for k in range(1 + (5 * n) % 12))
        made.append(Question(f"q{n}", text, options, "A"))
    return made


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_a_batch_ranks_as_one_question_at_a_time(folder: Path, batch: int) -> None:
    model, questions = LocalChat(folder), asked()
    found = likeliest(model, questions, by=("letter", "text"), batch=batch)
    for by in ("letter", "text"):
        for question, made in zip(questions, found[by], strict=True):
            alone = option_likelihood(model, question, by=by)
            assert made.question == question.id
            assert dict(made.scores) == pytest.approx(dict(alone.scores), abs=1e-4)
            assert (made.choice, made.calls, made.trace) == (alone.choice, 1, alone.trace)
    assert len({a.choice for a in found["text"]}) > 1, "a model that always says the same tests nothing"


def test_what_is_too_long_is_refused_with_its_tokens(folder: Path) -> None:
    long = Question("q", "w1 " * 150, ("w1", "w2"))
    with pytest.raises(UsageError, match=r"1\d\d tokens of .* reads 128"):
        likeliest(LocalChat(folder), [long])
    with pytest.raises(UsageError, match="batch=0"):
        likeliest(LocalChat(folder), asked(), batch=0)


def test_a_backend_without_log_probabilities_is_refused_and_any_other_with_them_serves() -> None:
    with pytest.raises(UsageError, match="does not tell log-probabilities"):
        likeliest(Scripted(["Answer: A"]), asked())

    class Last(Scripted):
        def score(self, messages, answers):
            return [float(n) for n in range(len(answers))]

    found = likeliest(Last([]), asked(), by=("text", "letter"))
    assert [a.choice for a in found["letter"]] == ["B" if len(q.options) == 2 else "C" for q in asked()]
    assert found["letter"][0].scores == {"A": 2.0, "B": 3.0}, "each way has its own log-probabilities"
