"""UniMed-CLIP as it is wired (sheet S01, "Not a toy"), and its proof at a tiny size."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from fabrica.curate.language.captions import read_back
from fabrica.phantom.p1 import LABELS
from fabrica.proofs import Plan, unimed_clip
from fabrica.proofs.unimed_clip import FRAMES, IMAGES, NAMES, UNSEEN, UNSEEN_FRAMES
from fabrica.systems import load_system
from fabrica.train import InMemory

SYSTEM = load_system("unimed_clip")
TOLD, LABELLED = unimed_clip.sources(24, 100)
BANK = unimed_clip.captioned(LABELLED, unimed_clip.many())


def built(records, **changes):
    settings = replace(SYSTEM.settings["tiny"], **changes)
    torch.manual_seed(0)
    bundle = SYSTEM.build(settings, records)
    return bundle, SYSTEM.stages(settings, bundle)[0]


def label(record):
    return next(k for k in LABELS if record.labels[k] == 1)


def test_every_caption_of_the_bank_says_its_label_and_nothing_else():
    schemas, bank = {s.modality: s for s in unimed_clip.many().schemas}, {}
    for record in BANK:
        said = [item.text() for item in record.all("caption")]
        assert len(set(said)) >= 11  # drawn without repetition, in a bounded number of tries
        bank.setdefault((record.groups["modality"], label(record)), set()).update(said)
        assert all(read_back(text, schemas[record.groups["modality"]]) == {label(record): True} for text in said)
    assert {len(said) for said in bank.values()} == {12}


def test_the_bank_holds_twelve_captions_a_class_and_the_baseline_one():
    for step, size in ((unimed_clip.many(), 12), (unimed_clip.single(), 1)):
        assert {step.bank.size(s, [k]) for s in step.schemas for k in LABELS} == {size}


def test_captioned_sources_have_no_label_and_label_only_sources_no_text():
    assert not any(r.labels for r in TOLD)
    assert all(r.first("caption") for r in TOLD)
    assert not any(r.first("caption", "report") for r in LABELLED)
    assert {r.groups["modality"] for r in TOLD} == {"xray", "ct"}
    assert Counter(r.groups["modality"] for r in [*TOLD, *LABELLED]) == dict.fromkeys(IMAGES, 24)


def test_no_training_caption_holds_a_test_name_or_frame():
    said = [item.text().lower() for r in [*TOLD, *BANK] for item in r.all("caption")]
    assert not any(name in text for names in UNSEEN.values() for name in names for text in said)
    assert not set(UNSEEN_FRAMES) & set(FRAMES)
    assert not any(frame.replace("{}", "").strip() in text for frame in UNSEEN_FRAMES for text in said)
    words = {k: {w for name in NAMES[k] for w in name.split()} for k in LABELS}
    every = set().union(*words.values())
    for k in LABELS:  # each test name has a word that only its own class uses, and no word that training never saw
        for name in UNSEEN[k]:
            assert set(name.split()) <= every
            assert {w for w in name.split() if w in words[k]} - set().union(*(words[o] for o in LABELS if o != k))


def test_one_caption_of_the_bank_is_drawn_a_visit_the_same_for_the_same_seed():
    bundle, _ = built(BANK)
    encode = bundle.collate.fields["text"].encode
    bank = {tuple(encode.ids(item.text()).tolist()) for item in BANK[0].all("caption")}

    def drawn(epoch):
        field = bundle.collate(BANK[:3], epoch).fields["text"]
        assert field.values.shape[1] == 1
        return tuple(field.values[0, 0][field.mask[0, 0]].tolist())

    seen = [drawn(epoch) for epoch in range(60)]
    assert set(seen) <= bank
    assert len(set(seen)) > 8
    assert seen[:5] == [drawn(epoch) for epoch in range(5)]


@pytest.mark.parametrize(
    ("positives", "key"), [("same_finding", "label"), ("same_label", "modality+label"), ("same_text", "text")]
)
def test_positives_are_rows_of_one_label_and_rows_without_a_label_stand_alone(positives, key):
    records = [*BANK, *TOLD]
    bundle, stage = built(records, positives=positives)
    batch = bundle.collate(records, 0)
    said = {"label": label, "modality+label": lambda r: (r.groups["modality"], label(r))}.get(key)
    assert stage.objectives["contrast"].positives_by == key
    if said is not None:
        things = [said(r) if r.labels else r.id for r in records]
        pairs = set(zip(batch.keys[key].tolist(), things, strict=True))
        assert len(pairs) == len({k for k, _ in pairs}) == len(set(things))


@pytest.mark.parametrize("positives", ["identity", "same_text", "same_label"])
def test_the_share_of_rows_with_another_rows_caption_is_logged(positives):
    records = unimed_clip.captioned(LABELLED, unimed_clip.single())[:48]
    bundle, stage = built(records, positives=positives)
    batch = bundle.collate(records, 0)
    terms = stage.objectives["contrast"](bundle.model, batch).terms
    counts = Counter(label(r) for r in records)
    assert terms["duplicates/text"] == pytest.approx(sum(n for n in counts.values() if n > 1) / len(records))


def test_batches_mix_the_sources_by_their_size():
    records = [*TOLD, *[r for r in BANK if r.groups["modality"] in ("mr", "fundus")][:30]]
    bundle, stage = built(records, mix_temperature=1.0)
    held = InMemory.of(records, bundle.collate, mix_by=stage.mix_by)
    assert {k: len(v) for k, v in held.groups("source").items()} == dict(Counter(r.groups["source"] for r in records))


def test_permuting_keeps_each_modalitys_counts_and_images():
    other = unimed_clip.permuted(LABELLED, 0)
    for m in set(IMAGES) - {"xray", "ct"}:
        a, b = ([label(r) for r in part if r.groups["modality"] == m] for part in (LABELLED, other))
        assert Counter(a) == Counter(b)
        assert a != b
    assert {r.id: r.first("image") for r in LABELLED} == {r.id: r.first("image") for r in other}


def test_the_same_answer_for_all_is_exactly_chance():
    truth, modality = np.tile(np.arange(6), 4), np.repeat(["mr", "fundus"], 12)
    columns = {"truth": truth, "answer": np.zeros(24, int), "modality": modality}
    assert unimed_clip.macro(columns, modalities=("mr", "fundus")) == pytest.approx(1 / 6)
    half = columns | {"answer": np.where(modality == "mr", truth, 0)}
    weights = np.stack([np.ones(24), np.where(modality == "mr", 1.0, 2.0)])
    assert unimed_clip.macro(half, weights, modalities=("mr", "fundus")) == pytest.approx([7 / 12, 7 / 12])


def test_the_proof_runs_small():
    size = unimed_clip.Size(seeds=(100, 101), train=24, test=18, steps=2, special=1, identity=True)
    proof = unimed_clip.prove(size, Plan(workers=1), test_seed=10_100)
    assert len(proof.arms) == 6
    assert {k: len(v) for k, v in proof.arms.items()} == dict.fromkeys(proof.arms, 2) | {unimed_clip.IDENTITY: 1}
    assert all(0 <= min(v) <= max(v) <= 1 for v in proof.arms.values())
    assert proof.verdict in ("shown", "not shown")
    assert all(c.interval[0] <= c.effect <= c.interval[1] for c in (*proof.claims, *proof.controls))
