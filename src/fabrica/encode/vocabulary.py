"""Vocabularies: train WordPiece or BPE on one's own texts, or load a tokenizer from a folder or the catalogue."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fabrica.errors import Refused, UsageError, need

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0..4, as BERT's
_JSON_BYTES = 64 * 2**20


def train_vocabulary(
    texts: Iterable[str], size: int, *, kind: Literal["wordpiece", "bpe"] = "wordpiece", lower: bool = True,
    min_frequency: int = 2,
) -> Tokenizer:  # fmt: skip
    """A tokenizer of at most `size` tokens learned from `texts`; "[CLS] text [SEP]"; same texts, same ids.

    "wordpiece" is BERT's (whole words split by greedy longest match, "##" continues), what domain encoders as
    PubMedBERT are trained with (arXiv 2007.15779); "bpe" works on bytes and has no unknown token.

    >>> train_vocabulary(["pleural effusion"] * 9, 100).encode("Pleural effusions?").tokens[:3]
    ['[CLS]', 'pleural', 'effusion']
    """
    tk = need("tokenizers", "train")
    if size <= len(SPECIAL):
        raise UsageError(f"a vocabulary of {size} has no room beside the {len(SPECIAL)} special tokens")
    corpus = [t for t in texts if t.strip()]
    if not corpus:
        raise UsageError("no text to learn a vocabulary from")
    normalizer = tk.normalizers.BertNormalizer(lowercase=lower)
    made: Tokenizer
    if kind == "wordpiece":
        made = tk.Tokenizer(
            tk.models.WordPiece(_wordpieces(corpus, size, normalizer, min_frequency), unk_token="[UNK]")
        )
        made.normalizer, made.pre_tokenizer = normalizer, tk.pre_tokenizers.BertPreTokenizer()
        made.decoder = tk.decoders.WordPiece()
        made.add_special_tokens(list(SPECIAL))
    elif kind == "bpe":
        made = tk.Tokenizer(tk.models.BPE(unk_token=None))
        made.normalizer = tk.normalizers.Lowercase() if lower else None
        made.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = tk.decoders.ByteLevel()
        trainer = tk.trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(SPECIAL), min_frequency=min_frequency, show_progress=False,
            initial_alphabet=tk.pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
        made.train_from_iterator(corpus, trainer)
    else:
        raise UsageError(f"kind {kind!r} is none of wordpiece, bpe")
    made.post_processor = tk.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def _wordpieces(corpus: list[str], size: int, normalizer: object, min_frequency: int) -> dict[str, int]:
    """Piece -> id. The library numbers continuing letters in an order that varies from run to run; naming them first,
    sorted, makes the ids a function of the texts."""
    tk = need("tokenizers", "train")
    split = tk.pre_tokenizers.BertPreTokenizer()
    learner = tk.Tokenizer(tk.models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, split
    letters: set[str] = set()
    for text in corpus:
        for word, _ in split.pre_tokenize_str(normalizer.normalize_str(text)):  # type: ignore[attr-defined]
            letters.update("##" + c for c in word[1:])
            letters.update(word[:1])
    first = [*SPECIAL, *sorted(letters)]
    trainer = tk.trainers.WordPieceTrainer(
        vocab_size=max(size, len(first)), special_tokens=first, min_frequency=min_frequency, show_progress=False
    )
    learner.train_from_iterator(corpus, trainer)
    found: dict[str, int] = learner.get_vocab()
    return dict(sorted(found.items(), key=lambda kv: kv[1])[: max(size, len(first))])


def load_tokenizer(source: Tokenizer | str | Path) -> Tokenizer:
    """A copy of a tokenizer: given, from a folder or file (tokenizer.json), or by catalogue name ("minilm")."""
    tk = need("tokenizers", "train")
    if not isinstance(source, (str, Path)):
        copy: Tokenizer = tk.Tokenizer.from_str(source.to_str())
        return copy
    path = Path(source)
    if not path.exists():
        path = _of_catalogue(str(source))
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"{str(path)!r} holds no tokenizer.json; save a fast tokenizer there")
    if file.stat().st_size > _JSON_BYTES:
        raise Refused("file_too_large", f"{file.name} has {file.stat().st_size} bytes; the limit is {_JSON_BYTES}")
    made: Tokenizer = tk.Tokenizer.from_str(file.read_text("utf-8"))
    return made


def _of_catalogue(name: str) -> Path:
    from fabrica import catalogue

    if name not in catalogue.names():
        raise UsageError(f"no folder or file {name!r}, and the catalogue has no tokenizer of that name")
    return Path(catalogue.weights(name))
