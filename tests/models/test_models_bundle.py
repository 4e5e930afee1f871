"""Bundles: save and load, embeddings, cache, similarity maps."""

import json
import shutil

import numpy as np
import pytest
import torch

from fabrica.encode.augment import MedicalImageAugment
from fabrica.encode.collate import Collate, Use
from fabrica.encode.image import ImageEncode
from fabrica.encode.signal import SignalEncode
from fabrica.encode.table import TableEncode
from fabrica.encode.text import TextEncode
from fabrica.encode.vocabulary import train_vocabulary
from fabrica.encode.volume import VolumeEncode
from fabrica.errors import FabricaError, Refused, UsageError
from fabrica.models import (
    Bundle,
    ConvTower,
    FeatureCache,
    MultiTower,
    ProjectionHead,
    SignalTower,
    TableTower,
    TextTower,
    Tower,
    VolumeTower,
    heatmap,
)
from fabrica.models.cache import fingerprint
from fabrica.types import Item, Origin, Record

SOURCE = Origin("synthetic", "x", "", "CC0-1.0")
SAID = ["left effusion", "no nodule seen", "heart normal in size"]


def build(seed=0, absent="exclude"):
    torch.manual_seed(seed)
    tokenizer = train_vocabulary(SAID * 3, 100)
    fields = {
        "image": Use(("image",), ImageEncode(32, 1, augment=MedicalImageAugment()), most=2),
        "text": Use(("report",), TextEncode(tokenizer, 16, view="one_sentence")),
        "ecg": Use(("ecg",), SignalEncode(50, 2.0, ("I", "II"))),
        "labs": Use(("labs",), TableEncode(("na", "k"), (140.0, 4.0), (4.0, 0.5))),
        "ct": Use(("volume",), VolumeEncode((8, 8, 8))),
    }
    bodies = {
        "image": ConvTower(1, (8, 16)), "text": TextTower(tokenizer.get_vocab_size(), 16, 1, 2, 16),
        "ecg": SignalTower(2, (8, 16)), "labs": TableTower(4, (16,)), "ct": VolumeTower(1, (8, 16)),
    }  # fmt: skip
    towers = {n: Tower(b, ProjectionHead((16, 8))) for n, b in bodies.items()}
    return Bundle(
        MultiTower(towers, 8, absent=absent), Collate(fields, keys=("subject", "text")), {"title": "Five kinds"}
    )


def record(i):
    rng = np.random.default_rng(i)
    items = {
        "image": tuple(Item("image", rng.integers(0, 255, (40, 30), dtype=np.uint8), SOURCE) for _ in range(1 + i % 2)),
        "report": (Item("text", SAID[i % 3], SOURCE),),
        "ecg": (Item("signal", rng.random((2, 200)), SOURCE, rate=100, names=("I", "II")),),
        "labs": (Item("table", np.array([140.0 + i]), SOURCE, names=("na",)),),
        "volume": (Item("volume", rng.random((6, 7, 8)), SOURCE),),
    }
    keep = [r for j, r in enumerate(items) if (i + j) % 4]
    return Record(f"r{i}", f"p{i}", items={r: items[r] for r in keep})


RECORDS = [record(i) for i in range(11)]


@pytest.mark.parametrize("absent", ["exclude", "token"])
def test_save_and_load_give_equal_outputs_for_every_kind(tmp_path, absent):
    bundle = build(absent=absent)
    bundle.save_pretrained(tmp_path / "b")
    assert {p.name for p in (tmp_path / "b").iterdir()} == {
        "config.json", "model.safetensors", "collate.json", "card.json", "README.md",
    }  # fmt: skip
    again = Bundle.from_pretrained(tmp_path / "b")
    assert again.card == {"title": "Five kinds"}
    assert again.collate == bundle.collate
    for field in bundle.fields:
        for what in ("embedding", "features"):
            a, b = (x.embed(RECORDS, field, what=what) for x in (bundle, again))
            assert np.abs(a[1] - b[1]).max() <= 1e-6
            assert np.array_equal(a[2], b[2])
            assert 0 < a[2].sum() < len(RECORDS)  # some present, some not


def test_embeddings_are_unit_rows_in_order_and_do_not_depend_on_the_batch():
    bundle = build()
    bundle.model.train()
    seen = []
    ids, rows, present = bundle.embed(RECORDS, "image", batch=4, progress=lambda *a: seen.append(a))
    assert bundle.model.training
    assert ids == [r.id for r in RECORDS]
    assert rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows[present], axis=1), 1, atol=1e-6)
    assert rows[~present].max(initial=0) == 0
    assert seen == [(4, 11, "embed image"), (8, 11, "embed image"), (11, 11, "embed image")]
    assert np.allclose(bundle.embed(iter(RECORDS), "image", batch=1)[1], rows, atol=1e-6)
    features = bundle.embed(RECORDS, "image", what="features", unit=False)[1]
    assert features.shape == (11, 16)
    assert bundle.embed([], "image")[1].shape == (0, 8)
    with pytest.raises(FabricaError, match="did you mean 'image'"):
        bundle.embed(RECORDS, "imag")
    with pytest.raises(UsageError):
        bundle.embed(RECORDS, "image", batch=0)


def test_embeddings_are_of_the_plain_image_and_the_whole_text():
    bundle, seen = build(), {}
    for name in ("image", "text"):
        hook = lambda m, args, out, name=name: seen.__setitem__(name, args[0])  # noqa: E731
        bundle.model.tower(name).body.register_forward_hook(hook)
    said = "Left effusion. No nodule seen."
    one = Record("r", "p", items={"image": record(1).items["image"][:1], "report": (Item("text", said, SOURCE),)})
    bundle.embed([one], "image")
    bundle.embed([one], "text")
    image, text = bundle.collate.fields["image"].encode, bundle.collate.fields["text"].encode
    assert np.array_equal(seen["image"][0], image.still()(one.items["image"][0], np.random.default_rng(0)))
    assert seen["text"][0].tolist() == text.ids(said).tolist()


def test_texts_and_items_are_embedded_as_records_are():
    bundle = build()
    rows = bundle.embed_texts(SAID)
    records = [Record(str(i), str(i), items={"report": (Item("text", t, SOURCE),)}) for i, t in enumerate(SAID)]
    assert np.allclose(rows, bundle.embed(records, "text")[1], atol=1e-6)


def test_the_cache_answers_only_for_the_same_model_and_transform(tmp_path):
    bundle, ran = build(), []
    bundle.model.tower("image").body.register_forward_hook(lambda m, args, out: ran.append(len(args[0])))
    plain = bundle.embed(RECORDS, "image")[1]
    ran.clear()

    def go(one=bundle, records=RECORDS, **kw):
        ran.clear()
        rows = one.embed(records, "image", cache=FeatureCache(tmp_path), **kw)[1]
        return rows, sum(ran)

    rows, first = go(records=RECORDS[:6])
    assert first > 0
    rows, rest = go()
    assert np.array_equal(rows, plain) or np.allclose(rows, plain, atol=1e-6)
    again, none = go()
    assert none == 0
    assert np.array_equal(again, rows)
    assert go(what="features")[1] == first + rest  # another output: nothing to reuse
    with torch.no_grad():
        bundle.model.tower("image").body.blocks[0][0].weight[0, 0, 0, 0] += 1e-3
    assert go()[1] == first + rest
    bundle.collate = Collate({**bundle.collate.fields, "image": Use(("image",), ImageEncode(24, 1))})
    assert go()[1] > 0


def test_a_broken_part_of_the_cache_is_computed_again(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put("k", ["a", "b"], np.ones((2, 3), np.float32), np.array([True, False]))
    part = next((tmp_path / "k").glob("*.npz"))
    part.write_bytes(part.read_bytes()[:50])
    again = FeatureCache(tmp_path)
    assert again.get("k", ["a", "b"]) == {}
    assert again.broken == 1
    again.put("k", ["a"], np.ones((1, 3), np.float32), np.array([True]))
    assert list(FeatureCache(tmp_path).get("k", ["a", "zz"])) == ["a"]
    with pytest.raises(UsageError):
        cache.get("../k", ["a"])


def test_fingerprints_see_every_bit():
    a = build(0).model
    assert fingerprint(a) == fingerprint(build(0).model) != fingerprint(build(1).model)
    before = fingerprint(a)
    with torch.no_grad():
        a.logit_scale.log_scale += 1e-6
    assert fingerprint(a) != before


def test_broken_folders_are_refused(tmp_path):
    build().save_pretrained(tmp_path / "good")
    with pytest.raises(UsageError, match="exists already"):
        build().save_pretrained(tmp_path / "good")
    build(3).save_pretrained(tmp_path / "good", replace=True)
    assert Bundle.from_pretrained(tmp_path / "good").fingerprint == build(3).fingerprint

    def broken(name, data):
        folder = tmp_path / f"bad-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "good", folder)
        (folder / name).unlink() if data is None else (folder / name).write_bytes(data)
        return folder

    for name in ("config.json", "model.safetensors", "collate.json"):
        with pytest.raises(UsageError, match=f"no {name}"):
            Bundle.from_pretrained(broken(name, None))
    weights = (tmp_path / "good" / "model.safetensors").read_bytes()
    for data in (b"\x80\x02}q\x00.", weights[:-9], b""):
        with pytest.raises(Refused):
            Bundle.from_pretrained(broken("model.safetensors", data))
    config = json.loads((tmp_path / "good" / "config.json").read_text())
    for change, match in (
        ({"library": "other"}, "library 'other'"),
        ({"format": 99}, "format 99"),
        ({"dim": 9}, "shared space has 9"),
        ({"absent": "token"}, "missing"),
    ):
        with pytest.raises(UsageError, match=match):
            Bundle.from_pretrained(broken("config.json", json.dumps({**config, **change}).encode()))
    config["towers"]["image"]["body"]["kind"] = "convv"
    with pytest.raises(UsageError, match="did you mean 'conv'"):
        Bundle.from_pretrained(broken("config.json", json.dumps(config).encode()))
    with pytest.raises(UsageError, match="no folder"):
        Bundle.from_pretrained(tmp_path / "nowhere")


def test_a_similarity_map_lies_over_the_image_at_its_own_size():
    bundle = build()
    r = record(1)
    got = heatmap(bundle, r, "left effusion")
    assert got.shape == (40, 30)
    assert np.abs(got).max() <= 1 + 1e-5
    # with a body and heads that pass brightness on, the bright part is the part that is close
    body = bundle.model.tower("image").body

    class Bright(torch.nn.Module):
        def forward(self, x):
            grid = torch.nn.functional.avg_pool2d(x, 2)
            return torch.cat([grid, torch.ones_like(grid), torch.zeros(len(x), 14, *grid.shape[2:])], 1)

    body.blocks = torch.nn.ModuleList([Bright()])
    bundle.model.tower("image").head = ProjectionHead((16,))
    bundle.embed_texts = lambda texts, field: np.eye(1, 16, dtype=np.float32)
    spot = np.zeros((60, 120), np.uint8)
    spot[10:20, 90:110] = 255
    one = Record("s", "s", items={"image": (Item("image", spot, SOURCE),)})
    found = heatmap(bundle, one, "bright")
    y, x = np.unravel_index(found.argmax(), found.shape)
    assert 8 <= y < 22
    assert 88 <= x < 112
    with pytest.raises(UsageError, match="has no image"):
        heatmap(bundle, Record("t", "t"), "x")
    with pytest.raises(UsageError, match="does not read images"):
        heatmap(bundle, one, "x", image="ecg")
