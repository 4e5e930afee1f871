"""Any transformers architecture: tiny random ones saved to a folder and loaded through the one call."""

import json

import numpy as np
import pytest
import torch

from fabrica.encode.collate import Collate, Use
from fabrica.encode.image import ImageEncode
from fabrica.encode.text import TextEncode
from fabrica.encode.vocabulary import train_vocabulary
from fabrica.errors import Refused, UsageError
from fabrica.models import Bundle, Freeze, Lora, MultiTower, ProjectionHead, Tower, TransformersTower, heatmap
from fabrica.types import Field, Item, Origin, Record

tf = pytest.importorskip("transformers")
SOURCE = Origin("synthetic", "x", "", "CC0-1.0")
SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
VISION = {
    "vit": tf.ViTConfig(**SMALL, image_size=32, patch_size=8),
    "dinov2_with_registers": tf.Dinov2WithRegistersConfig(**SMALL, image_size=56, patch_size=14),
    "resnet": tf.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1]),
    "convnext": tf.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2),
}
TEXT = {
    "bert": tf.BertConfig(**SMALL, vocab_size=300, max_position_embeddings=40),
    "llama": tf.LlamaConfig(**SMALL, vocab_size=300, num_key_value_heads=2),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, config in {**VISION, **TEXT}.items():
        torch.manual_seed(len(name))
        made[name] = tmp_path_factory.mktemp(name)
        tf.AutoModel.from_config(config).save_pretrained(made[name])
    return made


def pictures(n=2, size=56):
    return Field(torch.randn(n, 1, 3, size, size), torch.ones(n, 1, dtype=torch.bool))


@pytest.mark.parametrize("name", VISION)
def test_vision_folders_load_with_their_weights_and_give_a_grid(folders, name):
    body = TransformersTower.load(folders[name]).eval()
    field = pictures()
    plain = tf.AutoModel.from_pretrained(folders[name]).eval()
    extra = {"interpolate_pos_encoding": True} if name == "vit" else {}
    with torch.no_grad():
        found = Tower(body)(field)
        want = plain(field.values[:, 0], **extra).last_hidden_state
    want = want.flatten(2).transpose(1, 2) if want.ndim == 4 else want
    assert torch.allclose(found.tokens, want, atol=1e-5)
    assert found.grid is not None
    assert found.tokens.shape[1] - found.prefix == found.grid[0] * found.grid[1]
    assert found.prefix == {"vit": 1, "dinov2_with_registers": 5}.get(name, 0)
    assert torch.allclose(found.pooled, want[:, found.prefix :].mean(1), atol=1e-5)


@pytest.mark.parametrize("name", TEXT)
def test_text_folders_load_with_their_weights_and_ignore_padding(folders, name):
    body = TransformersTower.load(folders[name]).eval()
    ids = torch.randint(5, 300, (2, 1, 9))
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 0, 5:] = False
    valid = torch.ones(2, 1, dtype=torch.bool)
    pool = "last" if name == "llama" else "cls"
    with torch.no_grad():
        found = Tower(body, pool=pool)(Field(ids, valid, mask=mask))
        plain = tf.AutoModel.from_pretrained(folders[name]).eval()
        want = plain(input_ids=ids[1:, 0, :5]).last_hidden_state[0]
    assert torch.allclose(found.pooled[1], want[-1 if name == "llama" else 0], atol=1e-5)
    assert torch.allclose(found.tokens[1, :5], want, atol=1e-5)


def test_other_image_sizes_interpolate_positions(folders):
    for name in ("vit", "dinov2_with_registers"):
        body = TransformersTower.load(folders[name]).eval()
        for size in (28 * 2, 56 * 2):
            with torch.no_grad():
                grid = Tower(body)(pictures(1, size)).grid
            assert grid == (size // (8 if name == "vit" else 14),) * 2


def bundle(folders, vision, text, **kw):
    tokenizer = train_vocabulary(["left effusion no nodule heart normal ring disc bar"] * 3, 100)
    collate = Collate({
        "image": Use(("image",), ImageEncode(56, 3)),
        "text": Use(("report",), TextEncode(tokenizer, 40)),
    })  # fmt: skip
    image, words = TransformersTower.load(folders[vision], **kw), TransformersTower.load(folders[text])
    towers = {
        "image": Tower(image, ProjectionHead((image.width, 16))),
        "text": Tower(
            words, ProjectionHead((words.width, 24, 16), activation="gelu"), pool="cls", freeze=Freeze(layers=2)
        ),
    }
    return Bundle(MultiTower(towers, 16), collate, {"title": "Tiny", "licence": "Apache-2.0"})


def records(n=5):
    rng = np.random.default_rng(0)
    return [
        Record(f"r{i}", f"p{i}", items={
            "image": (Item("image", rng.integers(0, 255, (60, 50), dtype=np.uint8), SOURCE),),
            "report": (Item("text", f"Left effusion, {'no ' * i}nodule", SOURCE),),
        })
        for i in range(n)
    ]  # fmt: skip


@pytest.mark.parametrize("vision", VISION)
def test_a_bundle_reloads_without_the_original_folders(folders, tmp_path, vision):
    lora = Lora(rank=2, layers=1) if vision in ("vit", "dinov2_with_registers") else None
    made = bundle(folders, vision, "bert", lora=lora)
    for parameter in made.model.parameters():  # adapters start at zero: make every weight count
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    made.save_pretrained(tmp_path / "b")
    said = (tmp_path / "b" / "config.json").read_text()
    assert str(folders[vision]) not in said
    assert json.loads(said)["towers"]["image"]["body"]["config"]["model_type"] == vision
    again = Bundle.from_pretrained(tmp_path / "b")
    for field in ("image", "text"):
        a, b = made.embed(records(), field), again.embed(records(), field)
        assert a[0] == b[0] == [f"r{i}" for i in range(5)]
        assert np.abs(a[1] - b[1]).max() <= 1e-6
    assert again.fingerprint == made.fingerprint
    trains = {n for n, p in made.model.named_parameters() if p.requires_grad}
    assert trains == {n for n, p in again.model.named_parameters() if p.requires_grad}


def test_a_map_leaves_out_class_token_and_registers(folders):
    made = bundle(folders, "dinov2_with_registers", "bert")
    flat = records(1)[0].updated(items={"image": (Item("image", np.zeros((56, 56), np.uint8), SOURCE),)})
    token = made.model.encode("image", made.collate.only("image")([flat], 0).fields["image"]).tokens[0]
    assert token.shape[0] == 5 + 16
    local = made.model.tower("image").head(token[5:])
    words = torch.from_numpy(made.embed_texts(["left effusion"]))[0]
    want = (local @ words).view(4, 4).detach().numpy()
    got = heatmap(made, flat, "left effusion")
    assert got.shape == (56, 56)
    assert np.allclose(
        [got[0, 0], got[0, -1], got[-1, 0], got[-1, -1]], want[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-5
    )


def test_loading_is_silent(folders, capfd):
    TransformersTower.load(folders["bert"])
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_short_and_long_sequences_attend_alike(folders, monkeypatch):
    from fabrica.models import transformers_tower

    body = TransformersTower.load(folders["vit"]).eval()
    with torch.no_grad():
        x = pictures().values[:, 0]
        short = body(x).values
        assert body.settings._attn_implementation == "eager"
        monkeypatch.setattr(transformers_tower, "_SHORT", 3)
        long = body(x).values
    assert body.settings._attn_implementation == "sdpa"
    assert torch.allclose(short, long, atol=1e-5)


def test_lora_trains_adapters_of_the_last_layers_alone(folders):
    torch.manual_seed(0)
    plain = TransformersTower.load(folders["vit"]).eval()
    body = TransformersTower.load(folders["vit"], lora=Lora(rank=2, layers=2)).eval()
    x = pictures()
    with torch.no_grad():
        assert torch.allclose(Tower(plain)(x).pooled, Tower(body)(x).pooled, atol=1e-6)  # B = 0: nothing changed
    trains = [n for n, p in body.named_parameters() if p.requires_grad]
    assert trains
    assert all("lora_" in n for n in trains)
    assert {n.split("layers.")[1][0] for n in trains} == {"1", "2"}
    before = {n: p.clone() for n, p in body.named_parameters()}
    tower = Tower(body).train()
    optimiser = torch.optim.AdamW([p for p in tower.parameters() if p.requires_grad], 0.1, weight_decay=0.5)
    for _ in range(2):
        tower(x).pooled.pow(2).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    moved = {n for n, p in body.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(trains)
    for bad in (Lora(layers=4), Lora(layers=0)):
        with pytest.raises(UsageError, match="this net has 3"):
            TransformersTower.load(folders["vit"], lora=bad)
    with pytest.raises(UsageError, match="linear layers"):
        TransformersTower.load(folders["resnet"], lora=Lora(layers=1))


def test_the_first_layers_freeze_with_the_embeddings(folders):
    tower = Tower(TransformersTower.load(folders["bert"]), pool="max", freeze=Freeze(layers=2)).train()
    frozen = {n for n, p in tower.body.named_parameters() if not p.requires_grad}
    assert any("embeddings.word" in n for n in frozen)
    assert {n.split("layer.")[1][0] for n in frozen if "layer." in n} == {"0", "1"}
    assert not any("pooler" in n for n, _ in tower.body.named_parameters())
    assert not tower.body.model.encoder.layer[0].training
    assert tower.body.model.encoder.layer[2].training


def test_what_cannot_be_loaded_says_why(folders, tmp_path):
    with pytest.raises(UsageError, match="no model 'dinov'"):
        TransformersTower.load("dinov")
    with pytest.raises(UsageError, match=r"no config\.json"):
        TransformersTower.load(tmp_path)
    (tmp_path / "config.json").write_text((folders["bert"] / "config.json").read_text())
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Refused, match="checkpoint_format"):
        TransformersTower.load(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = load_file(folders["bert"] / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "layer.1.output" not in k}, tmp_path / "model.safetensors")
    with pytest.raises(Refused, match=r"lacks \d weights of a 'bert'"):
        TransformersTower.load(tmp_path)
    with pytest.raises(UsageError, match="local hub cache"):
        TransformersTower.load("nobody/nothing")
    with pytest.raises(UsageError, match="allow_network"):
        MultiTower.from_pretrained("nobody/nothing")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="from the folder"):
        TransformersTower.load(tmp_path)
    with pytest.raises(UsageError, match="model_type"):
        TransformersTower({"hidden_size": 3})


def test_a_field_that_does_not_fit_its_tower_is_refused_before_any_record(folders):
    good = bundle(folders, "vit", "bert")
    image, text = good.collate.fields["image"], good.collate.fields["text"]
    grey = Use(("image",), ImageEncode(56, 1))
    long = Use(("report",), TextEncode(text.encode.tokenizer, 41))
    wide = Use(("report",), TextEncode(train_vocabulary(["a b"], 400, kind="bpe"), 20))
    for fields, match in (
        ({"image": grey, "text": text}, r"reads \(3, H, W\)"),
        ({"image": image, "text": long}, "has 40 positions"),
        ({"image": text, "text": text}, "field gives None"),
        ({"image": image, "text": image}, "token ids"),
        ({"image": image}, "no field in the collate"),
    ):
        with pytest.raises(UsageError, match=match):
            Bundle(good.model, Collate(fields))
    assert wide.encode.size < 300


@pytest.mark.real_data
@pytest.mark.slow
def test_the_catalogues_encoders_load_and_mean_something():
    from fabrica import catalogue
    from fabrica.errors import FabricaError

    try:
        folders = {name: catalogue.weights(name) for name in ("dinov2-vit-s", "minilm")}
    except FabricaError as error:
        pytest.skip(f"not fetched: {error}")
    words = Tower(TransformersTower.load("minilm"))
    encode = TextEncode(folders["minilm"], 64)
    said = ["pleural effusion", "fluid around the lung", "normal ECG"]
    ids = [torch.from_numpy(encode.ids(t)) for t in said]
    with torch.no_grad():
        z = [words(Field(i[None, None], torch.ones(1, 1, dtype=torch.bool))).pooled[0] for i in ids]
    cosine = torch.nn.functional.cosine_similarity
    assert float(cosine(z[0], z[1], 0)) == pytest.approx(0.48, abs=0.02)  # sentence-transformers' own value
    assert float(cosine(z[0], z[2], 0)) == pytest.approx(0.19, abs=0.02)
    tower = Tower(TransformersTower.load("dinov2-vit-s", lora=Lora(layers=2)), pool="cls").eval()
    with torch.no_grad():
        found = tower(pictures(1, 112))
    assert found.grid == (8, 8)
    assert found.prefix == 5
    assert found.pooled.shape == (1, 384)
