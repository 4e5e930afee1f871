"""The splice of images and words (sheet S75, "Not a toy"): equal to the language model, to itself alone, and cached."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from fabrica.encode.chat import ChatEncode, chat_vocabulary
from fabrica.encode.collate import Use
from fabrica.encode.image import ImageEncode
from fabrica.encode.turns import ChatCollate
from fabrica.errors import Refused, UsageError
from fabrica.models import FeatureCache
from fabrica.models.adapt import Lora
from fabrica.models.assistant_bundle import AssistantBundle, Watched
from fabrica.models.bridge import PARTS, Assistant, language_of, left, merged, small_language, small_vision
from fabrica.objectives.turns import TurnTokens, learned
from fabrica.phantom.figure_talk import figures
from fabrica.sources import Quarantined, Ref
from fabrica.sources.vqa import read as read_vqa
from fabrica.train.ledger import Moved, curriculum, read
from fabrica.types import Absent, Batch, Field, Item, Origin, Record, Schedule, Stage

TEXTS = ["what organ is shown ? it is the liver", "describe the image . a nodule on the left", "<image> is a word"] * 4


def words(**changes) -> ChatEncode:
    return ChatEncode(chat_vocabulary(TEXTS, 120), 96, image_tokens=changes.pop("image_tokens", 4), **changes)


def assistant(seed: int = 0, *, lora: Lora | None = None, connector="mlp") -> Assistant:
    torch.manual_seed(seed)
    w = words()
    model = Assistant.assembled(
        small_vision(32, 8, 32, depth=2), small_language(w, width=32, depth=2), image_id=w.image_id, pool=2,
        connector=connector, lora=lora,
    )  # fmt: skip
    return model.eval()


def bundle(**options) -> AssistantBundle:
    return AssistantBundle(assistant(**options), ChatCollate(words(), Use(("image",), ImageEncode(32), 2)))


def fields(rows, images=None) -> dict[str, Field]:
    longest = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), 1, longest, dtype=torch.long), torch.zeros(len(rows), 1, longest).bool()
    for i, row in enumerate(rows):
        ids[i, 0, : len(row)], mask[i, 0, : len(row)] = torch.tensor(row), True
    made = {"text": Field(ids, torch.ones(len(rows), 1).bool(), None, mask)}
    if images is not None:
        count = max(len(i) for i in images)
        values, valid = torch.zeros(len(rows), count, 3, 32, 32), torch.zeros(len(rows), count).bool()
        for i, some in enumerate(images):
            for j, image in enumerate(some):
                values[i, j], valid[i, j] = image, True
        made["image"] = Field(values, valid)
    return made


def pixels(n: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_text_alone_is_the_language_model() -> None:
    model, w = assistant(), words()
    row, _ = w.ids([("what organ is shown ?", "the liver")])
    given = fields([row.tolist()])
    alone = language_of(model)(input_ids=given["text"].values[:, 0]).logits
    torch.testing.assert_close(model(given), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("connector", ["mlp", "linear", "normed"])
def test_one_and_two_images_are_their_tokens_put_in_by_hand(connector) -> None:
    model, w = assistant(connector=connector), words()
    for count in (1, 2):
        images = pixels(count)
        row, _ = w.ids([("what organ is shown ?", "the liver")], count)
        tokens = model.net.model.multi_modal_projector(model.see(images)).flatten(0, 1)  # (count * 4, W)
        embed = model.net.get_input_embeddings()
        first = row.tolist().index(w.image_id)
        by_hand = torch.cat([
            embed(torch.tensor(row[:first])), tokens, embed(torch.tensor(row[first + 4 * count :])),
        ])[None]  # fmt: skip
        wanted = language_of(model)(inputs_embeds=by_hand).logits
        torch.testing.assert_close(model(fields([row.tolist()], [images])), wanted, atol=1e-5, rtol=0)


def test_it_is_transformers_own_llava_where_that_can_be_asked() -> None:
    """With one leading class token and no pooling, the same as LlavaForConditionalGeneration's own forward."""
    torch.manual_seed(0)
    w = words(image_tokens=16)
    model = Assistant.assembled(
        small_vision(32, 8, 32, depth=2), small_language(w, width=32, depth=2), image_id=w.image_id
    ).eval()
    row, _ = w.ids([("what organ is shown ?", "the liver")], 1)
    ids, images = torch.tensor(row)[None], pixels(1)
    own = model.net(input_ids=ids, pixel_values=images).logits
    torch.testing.assert_close(model(fields([row.tolist()], [images])), own, atol=1e-5, rtol=0)


def mixed() -> tuple[list[list[int]], list[torch.Tensor]]:
    w = words()
    some = (("what organ is shown ?", 1), ("describe the image .", 0), ("a nodule on the left", 2))
    rows = [w.ids([(q, "it is the liver")], n)[0].tolist() for q, n in some]
    return rows, [pixels(n, n) for _, n in some]


def test_a_batch_is_its_rows_one_by_one() -> None:
    model, (rows, images) = assistant(), mixed()
    whole = model(fields(rows, images))
    for i, (row, some) in enumerate(zip(rows, images, strict=True)):
        alone = model(fields([row], [some]) if len(some) else fields([row]))
        torch.testing.assert_close(whole[i, : len(row)], alone[0], atol=1e-4, rtol=0)


def test_padding_on_either_side_gives_the_same() -> None:
    model, (rows, images) = assistant(), mixed()
    given = fields(rows, images)
    mask = given["text"].mask[:, 0]
    states = model.hidden(given)
    words_, at = left(model.splice(given["text"].values[:, 0], given["image"]), mask)
    from fabrica.models.bridge import positions

    other = model.net.model.language_model(
        inputs_embeds=words_, attention_mask=at.long(), position_ids=positions(at)
    ).last_hidden_state  # fmt: skip
    torch.testing.assert_close(other[at], states[mask], atol=1e-4, rtol=0)


def test_generation_with_a_cache_is_generation_without_and_the_full_forward() -> None:
    model, (rows, images) = assistant(3), mixed()
    given = fields(rows, images)
    stop = words().stop
    fast = model.generate(given, most=6, stop=stop)
    slow = model.generate(given, most=6, stop=stop, cached=False)
    assert torch.equal(fast, slow)
    for i, (row, some) in enumerate(zip(rows, images, strict=True)):
        told = list(row)
        for step in range(6):
            logits = model(fields([told], [some]) if len(some) else fields([told]))[0, -1]
            logits[words().image_id] = -torch.inf  # an assistant does not say images
            assert int(fast[i, step]) == int(logits.argmax())
            told.append(int(fast[i, step]))
            if told[-1] == stop:
                break


def test_adapters_change_nothing_before_a_step_and_merge_into_plain_layers() -> None:
    rows, images = mixed()
    given = fields(rows, images)
    plain, adapted = assistant(), assistant(lora=Lora(4, 8.0, 0))
    torch.testing.assert_close(adapted(given), plain(given), atol=1e-6, rtol=0)
    with torch.no_grad():
        for name, p in adapted.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.05)
    one = merged(adapted)
    assert not any("lora" in n for n, _ in one.named_parameters())
    assert (adapted(given) - plain(given)).abs().max() > 1e-3
    torch.testing.assert_close(one(given), adapted(given), atol=1e-4, rtol=0)


def test_places_and_images_that_do_not_agree_are_refused_row_by_row() -> None:
    """The total may agree while two rows are wrong: a count over the batch would mix up their images."""
    model, (rows, images) = assistant(), mixed()
    with pytest.raises(UsageError, match="row 0 has 4 places for image tokens and 2 images"):
        model(fields([rows[0], rows[2]], [images[2], images[0]]))
    with pytest.raises(UsageError, match="row 0 has 4 places for image tokens and 0 images"):
        model(fields([rows[0]]))


def test_words_that_look_like_an_image_are_words() -> None:
    w = words()
    row, _ = w.ids([("what is <image> here <end> ?", "an <image>")], 1)
    assert (row == w.image_id).sum() == 4
    assert (row == w.stop).sum() == 1


def test_what_is_learned_is_the_answers_with_their_ends_and_nothing_else() -> None:
    w = words()
    ids, learn = w.ids([("what organ is shown ?", "it is the liver"), ("describe the image .", "a nodule")], 2)
    assert w.tokenizer.decode(ids[learn].tolist()) == "it is the liver a nodule"
    assert ids[learn].tolist().count(w.stop) == 2
    assert not learn[ids == w.image_id].any()
    behind, _ = w.ids([("what organ is shown ?", "x")], 1, image_last=True)
    first = behind.tolist().index(w.image_id)
    assert first > 1
    assert behind[first : first + 4].tolist() == [w.image_id] * 4


def test_long_conversations_lose_whole_turns_and_too_long_ones_are_named() -> None:
    w = ChatEncode(chat_vocabulary(TEXTS, 120), 24, image_tokens=4)
    turns = [("what organ is shown ?", "it is the liver")] * 3
    ids, learn = w.ids(turns, 1)
    assert len(ids) <= 24
    assert (ids == w.image_id).sum() == 4
    assert int((ids[learn] == w.stop).sum()) < 3
    assert ids[-1] == w.stop
    with pytest.raises(Refused, match=r"record 'r7': \d+ tokens, 16 of them of images; the model is given 24"):
        w.ids([("what organ is shown ?", "it is the liver")], 4, name="record 'r7'")


def test_the_loss_is_the_mean_over_learned_tokens() -> None:
    made = bundle()
    batch = made.collate.still()([f.record() for f in figures(3, 5, size=32)], 0)
    loss = TurnTokens()(made.model, batch)
    logits = made.model(batch.fields)[:, :-1]
    at = batch.known["said"][:, 1:]
    wanted = functional.cross_entropy(logits[at], batch.targets["said"][:, 1:][at])
    torch.testing.assert_close(loss.total, wanted, atol=1e-5, rtol=0)
    assert loss.count == int(at.sum())
    assert not learned(torch.ones(2, 3).bool())[:, 0].any()
    nothing = Batch(batch.ids, batch.fields, batch.targets, {"said": torch.zeros_like(batch.known["said"])})
    assert TurnTokens()(made.model, nothing).count == 0


def test_features_seen_before_give_what_pixels_give() -> None:
    made = bundle()
    batch = made.collate.still()([f.record() for f in figures(3, 5, size=32)], 0)
    torch.testing.assert_close(made.model(made.seen(batch).fields), made.model(batch.fields), atol=1e-5, rtol=0)


def test_the_tower_looks_at_an_image_once_whichever_record_shows_it(tmp_path: Path) -> None:
    made = bundle()
    model, looks, see = made.model, [], made.model.see
    model.see = lambda pixels: looks.append(len(pixels)) or see(pixels)  # type: ignore[method-assign]
    some = [f.record() for f in figures(3, 5, size=32)]
    again = [replace(r, id=f"{r.id}-2") for r in some]  # the same images under other names
    watched = Watched(made, made.collate.still(), FeatureCache(tmp_path))
    first, other = watched(some), watched([*again, *some])
    assert sum(looks) == 3
    features = first.fields["image"].values
    assert torch.equal(other.fields["image"].values, torch.cat([features, features]))
    torch.testing.assert_close(features, made.seen(made.collate.still()(some)).fields["image"].values)
    looks.clear()
    later = Watched(bundle(), made.collate.still(), FeatureCache(tmp_path))  # the same weights, another process
    assert torch.equal(later(some).fields["image"].values, features)
    asked = ["what organ is shown ?"] * 3
    assert made.say(some, asked, most=4, features=FeatureCache(tmp_path)) == made.say(some, asked, most=4)
    assert sum(looks) == 3  # of the call without a cache


def test_normed_image_tokens_have_the_scale_of_words_whatever_that_of_features(tmp_path: Path) -> None:
    made = bundle(connector="normed")
    model = made.model
    words_ = model.net.get_input_embeddings().weight
    wanted = words_.square().mean().sqrt().item()
    batch = made.seen(made.collate.still()([f.record() for f in figures(3, 5, size=32)]))
    image = batch.fields["image"]
    for factor in (1.0, 50.0):
        tokens = model.image_tokens(Field(image.values * factor, image.valid))
        assert tokens.square().mean(-1).sqrt().mean().item() == pytest.approx(wanted, rel=0.02)
    again = AssistantBundle.from_pretrained(made.save_pretrained(tmp_path / "m"))
    torch.testing.assert_close(again.model.image_tokens(image), model.image_tokens(image))


def test_another_tower_has_its_own_features(tmp_path: Path) -> None:
    some = [f.record() for f in figures(2, 5, size=32)]
    one, two = (Watched(b, b.collate.still(), FeatureCache(tmp_path))(some) for b in (bundle(), bundle(seed=1)))
    assert (one.fields["image"].values - two.fields["image"].values).abs().max() > 1e-3


def test_adapters_stay_in_float32_in_a_half_precision_model() -> None:
    """A step of 1e-3 of a weight is lost in bfloat16."""
    torch.manual_seed(0)
    w = words()
    lm = small_language(w, width=32, depth=2).to(torch.bfloat16)
    model = Assistant.assembled(
        small_vision(32, 8, 32, depth=2), lm, image_id=w.image_id, pool=2, lora=Lora(2, 4.0, 0)
    ).eval()  # fmt: skip
    kinds = {("lora_" in n, p.dtype) for n, p in model.net.model.language_model.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    rows, images = mixed()
    assert torch.isfinite(model(fields(rows, images))).all()


@pytest.mark.parametrize("lora", [None, Lora(2, 4.0, 0)])
def test_the_ledger_holds_what_moved_and_frozen_parts_stand(tmp_path: Path, lora) -> None:
    made = bundle(lora=lora)
    records = [f.record() for f in figures(8, 5, size=32)]
    model = made.model

    def stage(name: str, *parts: str) -> Stage:
        return Stage(name, made.collate, {"t": TurnTokens()}, Schedule(2, 4, 1e-2, lr_scale=model.only(*parts)))

    stages = (stage("align", "connector"), stage("instruct", "connector", "language"))
    entries = curriculum(made, stages, {"align": records, "instruct": records}, tmp_path, parts=PARTS)
    assert [e.moved for e in entries] == [("connector",), ("connector", "language")]
    assert entries[0].trained == tuple(sorted(n for n, _ in model.named_parameters() if "projector" in n))
    assert entries[0].after == entries[1].before
    if lora is not None:
        assert all("projector" in n or "lora_" in n for n in entries[1].trained)
    assert [e.stage for e in read(tmp_path)] == ["align", "instruct"]
    with pytest.raises(Refused, match="ended with other weights"):
        curriculum(bundle(seed=9), stages[:1], {"align": records}, tmp_path, parts=PARTS)


def test_a_frozen_part_that_moves_is_an_error(tmp_path: Path) -> None:
    made = bundle()
    records = [f.record() for f in figures(4, 5, size=32)]
    stage = Stage("s", made.collate, {"t": TurnTokens()}, Schedule(1, 4, 1e-2, lr_scale=made.model.only("connector")))
    true, calls = made.model.hashes, []

    def wrong() -> dict[str, str]:
        calls.append(1)
        return true() | ({"vision": "other"} if len(calls) > 1 else {})

    made.model.hashes = wrong  # type: ignore[method-assign]
    with pytest.raises(Moved, match="changed vision"):
        curriculum(made, [stage], {"s": records}, tmp_path, parts=PARTS)


def test_saved_and_loaded_assistants_answer_alike(tmp_path: Path) -> None:
    made = bundle(lora=Lora(2, 4.0, 0))
    records = [f.record() for f in figures(3, 5, size=32)]
    again = AssistantBundle.from_pretrained(made.save_pretrained(tmp_path / "m"))
    asked = ["what organ is shown ?"] * 3
    assert again.say(records, asked, most=5) == made.say(records, asked, most=5)
    assert made.say(records, asked, most=5, batch=1) == made.say(records, asked, most=5, batch=3)


def picture(value) -> Record:
    return Record("r1", "r1", items={"image": (Item("image", value, Origin("t", "a.png", "", "")),)})


def test_odd_images_are_read_and_bad_ones_are_named() -> None:
    """16 bit and RGBA are images; empty, unreadable and CMYK-as-raw ones are errors with the record's id."""
    collate = bundle().collate
    for fine in (np.zeros((9, 7), np.uint16), np.zeros((9, 7, 4), np.uint8)):
        assert bool(collate([picture(fine)]).fields["image"].valid.all())
    for bad in (np.zeros((0, 7, 3), np.uint8), np.zeros((9, 7, 5), np.uint8), np.full((4, 4), np.nan)):
        with pytest.raises(Refused, match="record 'r1', field 'image'"):
            collate([picture(bad)])
    with pytest.raises(Refused, match=r"record 'r1', field 'image': 'a\.png' holds no pixels"):
        collate([picture(Absent.UNREADABLE)])
    lost = collate([picture(Absent.NOT_LINKED)])
    assert not bool(lost.fields["image"].valid.any())
    assert int((lost.fields["text"].values == collate.words.image_id).sum()) == 0


def test_files_of_odd_modes_are_read_and_broken_ones_are_set_aside_by_name(tmp_path: Path) -> None:
    """CMYK, 16 bit and RGBA files; nothing takes the place of a missing or an empty one."""
    noise = np.random.default_rng(0).integers(0, 255, (9, 7, 4)).astype(np.uint8)
    Image.fromarray(noise, "CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(noise, "RGBA").save(tmp_path / "rgba.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    (tmp_path / "empty.png").write_bytes(b"")
    names = ("cmyk.jpg", "rgba.png", "deep.png", "empty.png", "none.png")
    rows = [{"image": n, "question": "what organ is shown ?", "answer": "the liver"} for n in names]
    (tmp_path / "qa.json").write_text(json.dumps(rows))
    found = list(read_vqa(Ref(tmp_path / "qa.json", "qa.json", "demo", "CC0-1.0")))
    records = [r for r in found if isinstance(r, Record)]
    pixels_ = bundle().collate(records).fields["image"]
    assert bool(pixels_.valid.all())
    assert pixels_.values.shape == (3, 1, 3, 32, 32)
    lost = {q.key: q.code for q in found if isinstance(q, Quarantined)}
    assert list(lost) == ["qa.json#3", "qa.json#4"]
    assert lost["qa.json#4"] == "missing_file"


def test_bundles_refuse_what_does_not_fit() -> None:
    made = bundle()
    other = ChatEncode(chat_vocabulary(TEXTS * 3, 40), 96, image_tokens=4)
    with pytest.raises(UsageError, match="image token"):
        AssistantBundle(made.model, replace(made.collate, words=other))
    with pytest.raises(UsageError, match="makes no field 'image'"):
        AssistantBundle(made.model, made.collate.blind())
    with pytest.raises(UsageError, match="has no token '<picture>'"):
        ChatEncode(chat_vocabulary(TEXTS, 120), 96, image_token="<picture>")
    with pytest.raises(UsageError, match="did you mean 'vicuna'"):
        ChatEncode(chat_vocabulary(TEXTS, 120), 96, template="vicunna")
