"""The real backends of the ports on tiny random weights, saved and loaded through the same call."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from fabrica.errors import Refused, UsageError
from fabrica.types import Embedder, Item, Origin, Region, Segmenter, Transcriber

torch = pytest.importorskip("torch")
from fabrica.models.embed import TowerEmbedder  # noqa: E402
from fabrica.models.segment import MedSam  # noqa: E402
from fabrica.models.transcribe import RATE, Whisper, mono  # noqa: E402

ORIGIN = Origin("made", "a", "", "")


def text(value: str) -> Item:
    return Item("text", value, ORIGIN)


# ------------------------------------------------------------ embedder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path = tmp_path_factory.mktemp("tiny-bert")
    (path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]))
    BertTokenizerFast(str(path / "vocab.txt")).save_pretrained(path)
    torch.manual_seed(0)
    BertModel(
        BertConfig(vocab_size=13, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                   max_position_embeddings=16)
    ).save_pretrained(path)  # fmt: skip
    return path


def test_text_rows_are_the_mean_over_real_tokens(bert: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    embed = TowerEmbedder(bert, batch=2)
    assert isinstance(embed, Embedder)
    texts = ["a b c", "d", "a a a b b b c c c d d d e e e f f f", "h g"]
    rows = embed([text(t) for t in texts])
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    for row, t in zip(rows, texts, strict=True):
        told = tokenizer(t, return_tensors="pt", truncation=True, max_length=16)
        with torch.no_grad():
            mean = model(**told).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(row, (mean / mean.norm()).numpy(), atol=1e-5)
    assert rows.dtype == np.float32
    assert embed([]).shape == (0, 24)
    assert pickle.loads(pickle.dumps(embed)).name == embed.name


def test_image_rows_are_the_class_token_after_the_folders_own_transform(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    folder = tmp_path / "tiny-vit"
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, image_size=32,
                       patch_size=8)  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    mean, std = [0.2, 0.3, 0.4], [0.5, 0.6, 0.7]
    ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=mean, image_std=std).save_pretrained(folder)
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    row = TowerEmbedder(folder)([Item("image", pixels, ORIGIN)])[0]
    x = torch.tensor((pixels / 255 - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        first = ViTModel.from_pretrained(folder, add_pooling_layer=False)(x).last_hidden_state[0, 0]
    np.testing.assert_allclose(row, (first / first.norm()).numpy(), atol=1e-5)
    with pytest.raises(UsageError, match="image or volume"):
        TowerEmbedder(folder)([text("a")])


# ------------------------------------------------------------ segmenter


def test_medsam_answers_boxes_and_leaves_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On random weights; those of the published checkpoint are read in tests/catalogue."""
    from fabrica.models.litemedsam import LiteMedSAM

    torch.manual_seed(0)
    model = LiteMedSAM().eval()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(LiteMedSAM, "from_pretrained", lambda folder: model)
    segment = MedSam(tmp_path)
    assert isinstance(segment, Segmenter)
    image = Item("image", np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8), ORIGIN)
    boxes = [
        Region("image", "box", np.array([8.0, 8, 40, 40]), "mass", ORIGIN, text="a"),
        Region("image", "point", np.array([8.0, 8]), "point", ORIGIN),
        Region("image", "box", np.array([9.0, 9, 9, 40]), "thin", ORIGIN),
    ]
    found = segment(image, boxes)
    reference = model.segment(image.array(), (8, 8, 40, 40))
    assert [r.label for r in found] == (["mass"] if reference.any() else [])
    for region in found:
        np.testing.assert_array_equal(region.data, reference)
        assert region.origin.by == "model"
    assert pickle.loads(pickle.dumps(segment)).name == segment.name


# ------------------------------------------------------------ transcriber


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Byte tokens, the special tokens of the multilingual models, and two layers with random weights."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    path = tmp_path_factory.mktemp("tiny-whisper")
    made = byte_tokenizer(path, WhisperTokenizer)
    ids = made.convert_tokens_to_ids
    torch.manual_seed(3)
    config = WhisperConfig(
        vocab_size=len(made), d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80, max_target_positions=64,
        pad_token_id=ids("<|endoftext|>"), bos_token_id=ids("<|endoftext|>"), eos_token_id=ids("<|endoftext|>"),
        decoder_start_token_id=ids("<|startoftranscript|>"), init_std=0.5,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=ids("<|endoftext|>"), pad_token_id=ids("<|endoftext|>"), max_length=40,
        decoder_start_token_id=ids("<|startoftranscript|>"), no_timestamps_token_id=ids("<|notimestamps|>"),
        is_multilingual=True, lang_to_id={"<|en|>": ids("<|en|>")}, suppress_tokens=[], begin_suppress_tokens=[],
        task_to_id={"transcribe": ids("<|transcribe|>")}, alignment_heads=[[0, 0], [1, 1]],
        max_initial_timestamp_index=50, prev_sot_token_id=ids("<|startofprev|>"),
    )  # fmt: skip
    model.save_pretrained(path)
    WhisperProcessor(WhisperFeatureExtractor(), made).save_pretrained(path)
    return path


def byte_tokenizer(path: Path, cls: type) -> object:
    import json

    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = {c: n for n, c in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary["<|endoftext|>"] = len(vocabulary)
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    (path / "merges.txt").write_text("#version: 0.2\n")
    made = cls(str(path / "vocab.json"), str(path / "merges.txt"))
    special = ["<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|nospeech|>",
               "<|notimestamps|>"]  # fmt: skip
    made.add_special_tokens({"additional_special_tokens": special})
    made.add_tokens([f"<|{n * 0.02:.2f}|>" for n in range(1501)])
    return made


@pytest.mark.parametrize("words", [False, True])
def test_words_come_in_order_within_the_sound_and_the_same_each_time(whisper: Path, words: bool) -> None:
    hear = Whisper(whisper, words=words)
    assert isinstance(hear, Transcriber)
    seconds = 33.0
    sound = np.random.default_rng(0).normal(0, 0.1, (2, int(8000 * seconds))).astype(np.float32)
    item = Item("audio", sound, ORIGIN, rate=8000.0)
    found = hear(item)
    assert found
    spans = np.array([r.data for r in found])
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (np.diff(spans[:, 0]) >= 0).all()
    assert spans.min() >= 0
    assert spans.max() <= seconds + 0.1
    assert all(r.text and " " not in r.text and "<|" not in r.text for r in found)
    assert found[0].origin.by == "model"
    again = pickle.loads(pickle.dumps(hear))(item)
    assert [(r.text, r.data.tolist()) for r in again] == [(r.text, r.data.tolist()) for r in found]


def test_sound_is_mixed_and_resampled() -> None:
    time = np.arange(44_100) / 44_100
    tone = np.sin(2 * np.pi * 440 * time)
    item = Item("audio", (np.stack([tone, tone]) * 16_384).astype(np.int16), ORIGIN, rate=44_100.0)
    heard = mono(item)
    assert heard.shape == (RATE,)
    np.testing.assert_allclose(
        heard[100:-100], 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)[100:-100], atol=5e-3
    )
    for bad in (
        Item("audio", np.zeros((1, 9)), ORIGIN), Item("signal", np.zeros((1, 9)), ORIGIN, rate=9.0),
        Item("audio", np.zeros(9), ORIGIN, rate=9.0), Item("audio", np.full((1, 9), np.nan), ORIGIN, rate=9.0),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            mono(bad)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(Refused, match="safetensors"):
        Whisper(tmp_path)(Item("audio", np.zeros((1, 9)), ORIGIN, rate=9.0))
