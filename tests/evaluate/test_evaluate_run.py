"""The whole evaluation on a small fake corpus and model: rows, cards, resume, leak gate, failures."""

import hashlib
import io
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from fabrica.errors import Leak, UsageError
from fabrica.evaluate import KNN, LinearProbe, Prompts, Retrieval, ZeroShot, cards, run
from fabrica.types import Item, Origin, Record

ROWS = pa.schema(
    [("id", pa.string()), ("subject", pa.string()), ("tags", pa.list_(pa.string())), ("bytes", pa.int64())]
)
CLASSES = ("disc", "ring", "bar")
WORDS = ("a picture of {}", "{} seen")
PROMPTS = Prompts("1", {c: (c,) for c in CLASSES}, WORDS)


def picture(kind: int, rng) -> np.ndarray:
    image = rng.normal(90, 25, (40, 40))
    image[5 + 10 * kind : 13 + 10 * kind, 8:32] += 90
    return np.clip(image, 0, 255).astype(np.uint8)


def records(n=240, seed=0, *, phantom=0.5):
    rng = np.random.default_rng(seed)
    out = []
    for i in range(n):
        kind, fake = int(rng.integers(3)), rng.random() < phantom
        origin = Origin("demo", f"{i}", f"{i:064x}", "CC0-1.0", "synthetic" if fake else "source")
        out.append(
            Record(
                f"r{i:04d}",
                f"p{i // 2:04d}",
                groups={"modality": ("xray", "ct")[(i // 2) % 2]},
                items={
                    "image": (Item("image", picture(kind, rng), origin),),
                    "report": (Item("text", f"{CLASSES[kind]} seen number {i}", origin),),
                },
                labels={c: float(c == CLASSES[kind]) for c in CLASSES},
                split="train" if (i // 2) % 3 else "test",
            )
        )
    return out


class FakeCorpus:
    """`where` is "split = 'x'"."""

    def __init__(self, held):
        self.held, self.scans = held, 0

    def _of(self, where):
        return [r for r in self.held if where is None or r.split == where.split("'")[1]]

    def scan(self, where=None, *, roles=None):
        self.scans += 1
        yield from self._of(where)

    def split_hash(self, where=None):
        return hashlib.sha256("\n".join(sorted(r.id for r in self._of(where))).encode()).hexdigest()

    def rows(self, columns, where=None):
        held = self._of(where)
        tags = [sorted(f"{k}={v}" for k, v in r.labels.items()) for r in held]
        sizes = [sum(i.value.nbytes for i in r.items.get("image", ())) for r in held]
        columns = {"id": [r.id for r in held], "subject": [r.subject for r in held], "tags": tags, "bytes": sizes}
        return pa.table(columns, schema=ROWS)


class FakeBundle:
    """Sees the bars of the pictures and the class words of the texts, with noise; `skill` 0 is blind."""

    def __init__(self, skill=1.0, seed=0):
        fields = {"image": SimpleNamespace(roles=("image",)), "text": SimpleNamespace(roles=("report", "caption"))}
        self.collate, self.skill, self.seed = SimpleNamespace(fields=fields), skill, seed
        self.fingerprint = f"fake-{skill}-{seed}"
        self.calls = 0

    def embed(self, batch, field, /, *, what="embedding", unit=True, **_):
        self.calls += 1
        batch = list(batch)
        rows = np.zeros((len(batch), 8), dtype=np.float32)
        present = np.zeros(len(batch), dtype=bool)
        for i, record in enumerate(batch):
            item = record.first(*self.collate.fields[field].roles)
            if item is None:
                continue
            present[i] = True
            noise = np.random.default_rng(
                int(hashlib.sha256(f"{record.id}{field}{self.seed}".encode()).hexdigest()[:8], 16)
            )
            rows[i] = 0.2 * noise.standard_normal(8)
            if field == "image":
                bars = [item.array()[5 + 10 * k : 13 + 10 * k, 8:32].mean() for k in range(3)]
                rows[i, int(np.argmax(bars))] += self.skill
            else:
                sign = -1 if item.text().startswith("no ") else 1
                rows[i, :3] += [sign * self.skill * (c in item.text()) for c in CLASSES]
        return [r.id for r in batch], rows, present


TASKS = (
    ZeroShot("shapes", CLASSES, PROMPTS),
    Retrieval("reports"),
    Retrieval("same shape", candidate="image", relevance="labels", labels=CLASSES, exclude="record"),
    KNN("neighbours", CLASSES),
    LinearProbe("probe", CLASSES, fractions=(0.01, 0.1, 1.0)),
)


def find(scores, **wanted):
    found = [s for s in scores if all(getattr(s, k) == v for k, v in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def test_scores_say_what_they_are(tmp_path):
    corpus = FakeCorpus(records())
    scores = run(FakeBundle(), corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    zero = find(scores, task="shapes", metric="accuracy", arm="model", data="real", group="")
    assert zero.value > 0.95
    assert zero.low <= zero.value <= zero.high
    assert (zero.prompt_version, zero.version) == (PROMPTS.tag, "zero_shot-1")
    assert zero.split_hash == corpus.split_hash("split = 'test'")
    test = [r for r in corpus.held if r.split == "test" and r.items["image"][0].origin.by == "source"]
    assert (zero.n, zero.subjects) == (len(test), len({r.subject for r in test}))
    assert {s.data for s in scores} == {"real", "phantom"}
    assert {s.group for s in scores if s.task == "shapes"} == {"", "xray", "ct"}
    base = find(scores, task="shapes", metric="macro AUC", arm="prevalence", data="real")
    assert base.value == 0.5
    gap = find(scores, task="shapes", metric="accuracy difference", arm="model minus prevalence", data="real")
    assert gap.low > 0.3
    arms = {s.arm for s in scores if s.task == "probe at 100 % of the labels"}
    assert arms >= {"model", "prevalence", "pixels", "random features", "border only"}
    found = find(scores, task="reports: image to text", metric="MRR", arm="model", data="real")
    assert found.value > find(scores, task="reports: image to text", metric="MRR", arm="chance", data="real").value
    near = find(scores, task="same shape: image to image", metric="P@5", arm="model", data="real")
    assert near.value > 0.9
    skipped = cards.read(tmp_path).unscored
    assert [u.task for u in skipped] == ["probe at 1 % of the labels"]
    assert "without a positive" in skipped[0].why


def test_a_blind_model_is_at_chance(tmp_path):
    corpus = FakeCorpus(records(600, phantom=0.0))
    scores = run(FakeBundle(skill=0.0), corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    for task, metric, chance in (
        ("shapes", "accuracy", 1 / 3),
        ("neighbours", "accuracy", 1 / 3),
        ("shapes", "macro AUC", 0.5),
    ):
        s = find(scores, task=task, metric=metric, arm="model", group="")
        assert abs(s.value - chance) < 0.12
    one = find(scores, task="probe at 100 % of the labels", metric="accuracy", arm="border only", group="")
    full = find(scores, task="probe at 100 % of the labels", metric="accuracy", arm="pixels", group="")
    assert one.value < 0.5 < full.value  # the bars are inside, the border is noise


def test_every_number_comes_from_the_rows(tmp_path):
    corpus = FakeCorpus(records(120))
    scores = run(FakeBundle(skill=0.4), corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    text = (tmp_path / "cards.json").read_text()
    (tmp_path / "cards.json").unlink()
    again = cards.recompute(tmp_path)
    assert len(again) == len(scores)
    assert all(cards.same(a, b) for a, b in zip(scores, again, strict=True))
    cards.write(tmp_path, cards.Cards(tuple(again), cards.Cards(()).unscored))
    assert json.loads((tmp_path / "cards.json").read_text())["scores"] == json.loads(text)["scores"]
    assert all(cards.same(a, b) for a, b in zip(scores, cards.read(tmp_path).scores, strict=True))
    facts, columns = cards.read_rows(cards.rows_path(tmp_path, "shapes"))
    mine = (columns["arm"] == "model") & (columns["data"] == "real")
    by_hand = (columns["truth"][mine] == columns["answer"][mine]).mean()
    assert find(scores, task="shapes", metric="accuracy", arm="model", data="real", group="").value == by_hand
    assert facts.classes == CLASSES


def test_a_second_run_computes_nothing_and_another_model_everything(tmp_path):
    corpus, bundle = FakeCorpus(records(120)), FakeBundle()
    first = run(bundle, corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    files = {p: p.read_bytes() for p in (tmp_path / "rows").iterdir()}
    calls, scans = bundle.calls, corpus.scans
    again = run(bundle, corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    assert (bundle.calls, corpus.scans) == (calls, scans)
    assert all(cards.same(a, b) for a, b in zip(first, again, strict=True))
    other = run(FakeBundle(skill=0.1), corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    assert not all(cards.same(a, b) for a, b in zip(first, other, strict=True))
    run(bundle, corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    assert {p: p.read_bytes() for p in (tmp_path / "rows").iterdir() if p.suffix == ".parquet"} == {
        p: b for p, b in files.items() if p.suffix == ".parquet"
    }  # same inputs, seed and version: same bytes


def test_a_damaged_rows_file_is_made_again(tmp_path):
    corpus, bundle = FakeCorpus(records(120)), FakeBundle()
    first = run(bundle, corpus, tmp_path, tasks=TASKS[:2], trained_on=corpus)
    path = cards.rows_path(tmp_path, "shapes")
    path.write_bytes(path.read_bytes()[:100])
    again = run(bundle, corpus, tmp_path, tasks=TASKS[:2], trained_on=corpus)
    assert all(cards.same(a, b) for a, b in zip(first, again, strict=True))


def test_fewer_tasks_leave_no_old_card(tmp_path):
    corpus, bundle = FakeCorpus(records(120)), FakeBundle()
    run(bundle, corpus, tmp_path, tasks=TASKS[:2], trained_on=corpus)
    scores = run(bundle, corpus, tmp_path, tasks=TASKS[:1], trained_on=corpus)
    assert {s.task for s in scores} == {"shapes"}


def test_each_part_is_embedded_once(tmp_path):
    corpus, bundle = FakeCorpus(records(120)), FakeBundle()
    run(bundle, corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    images = 2 + 2  # embedding and features of train and of test, one batch each
    texts = 1 + 2  # of test; prompts of two modalities
    assert bundle.calls == images + texts


def test_a_leak_stops_before_anything_is_scored(tmp_path):
    held = records(120)
    held[1] = replace(held[1], split="train" if held[0].split == "test" else "test")  # the other record of that subject
    corpus, bundle = FakeCorpus(held), FakeBundle()
    with pytest.raises(Leak, match="subject 1"):
        run(bundle, corpus, tmp_path, tasks=TASKS[:1], trained_on=corpus)
    assert not list(tmp_path.rglob("*.parquet"))
    assert bundle.calls == 0
    scores = run(bundle, corpus, tmp_path, tasks=TASKS[:1], trained_on=corpus, allow_leak=True)
    assert all("LEAK: 1 of" in s.note for s in scores)
    with pytest.raises(Leak):  # the marked rows are not taken for clean ones
        run(bundle, corpus, tmp_path, tasks=TASKS[:1], trained_on=corpus)


def test_an_unknown_training_set_is_said(tmp_path):
    scores = run(FakeBundle(), FakeCorpus(records(120)), tmp_path, tasks=TASKS[:1])
    assert all("leaks not checked" in s.note for s in scores)


def test_a_failed_sample_is_counted_and_named_never_scored(tmp_path):
    held = records(120, phantom=0.0)
    test = [i for i, r in enumerate(held) if r.split == "test"]
    whole = run(FakeBundle(), FakeCorpus(held), tmp_path / "a", tasks=TASKS[:2], trained_on=FakeCorpus(held))
    for i in test[:3]:
        held[i] = held[i].without("image")
    held[test[3]] = replace(held[test[3]], labels={})
    scores = run(FakeBundle(), FakeCorpus(held), tmp_path / "b", tasks=TASKS[:2], trained_on=FakeCorpus(held))
    s = find(scores, task="shapes", metric="accuracy", arm="model", group="")
    before = find(whole, task="shapes", metric="accuracy", arm="model", group="")
    assert s.n == before.n - 4
    assert "3 without this input" in s.note
    assert "1 without a known label" in s.note
    back = find(scores, task="reports: text to image", metric="R@1", arm="model", group="")
    assert "3 without a relevant candidate" in back.note


def test_further_arms_stand_beside(tmp_path):
    corpus = FakeCorpus(records(120, phantom=0.0))
    scores = run(
        FakeBundle(), corpus, tmp_path, tasks=TASKS[:1], trained_on=corpus, arms={"untrained": FakeBundle(skill=0.0)}
    )
    gap = find(scores, task="shapes", metric="accuracy difference", arm="model minus untrained")
    assert gap.low > 0.3


def test_multi_label_with_unknowns(tmp_path):
    held = [replace(r, labels={k: v for k, v in r.labels.items() if v == 0}) for r in records(300)]
    corpus = FakeCorpus(held)
    tasks = (
        ZeroShot("findings", CLASSES, PROMPTS, exclusive=False),
        LinearProbe("probe", CLASSES, exclusive=False, fractions=(1.0,)),
        KNN("one", CLASSES[:1], exclusive=False),
    )
    with pytest.raises(UsageError, match="without a positive"):
        run(FakeBundle(), corpus, tmp_path, tasks=tasks[1:2], trained_on=corpus)  # every positive was taken away
    held = [
        replace(r, labels={k: v for k, v in r.labels.items() if k != CLASSES[(i // 7) % 3]})
        for i, r in enumerate(records(300))
    ]
    corpus = FakeCorpus(held)
    scores = run(FakeBundle(), corpus, tmp_path, tasks=tasks, trained_on=corpus)
    assert find(scores, task="findings", metric="macro AUC", arm="model", data="real", group="").value > 0.9
    assert (
        find(scores, task="probe at 100 % of the labels", metric="macro AUC", arm="model", data="real", group="").value
        > 0.9
    )
    assert find(scores, task="one", metric="AUC", arm="model", data="real", group="").value > 0.9


@pytest.mark.parametrize(
    ("tasks", "match"),
    [
        ((), "no task"),
        ((TASKS[0], TASKS[0]), "twice"),
        ((ZeroShot("z", ("disk",), PROMPTS),), "no record of .* has a known label"),
        ((ZeroShot("z", CLASSES, PROMPTS, where="split = 'val'"),), "no record of the corpus fits"),
        ((Retrieval("r", relevance="caption"),), "none of record, subject, text, labels"),
    ],
)
def test_wrong_tasks_are_named(tmp_path, tasks, match):
    corpus = FakeCorpus(records(60))
    with pytest.raises(UsageError, match=match):
        run(FakeBundle(), corpus, tmp_path, tasks=tasks, trained_on=corpus)


def test_cards_of_nothing_and_of_other_files(tmp_path):
    with pytest.raises(UsageError, match="no rows"):
        cards.recompute(tmp_path)
    with pytest.raises(UsageError, match=r"no cards\.json"):
        cards.read(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"PAR1 this is not one")
    with pytest.raises(UsageError, match="not a rows file"):
        cards.read_rows(tmp_path / "x.parquet")


def test_the_terminal_table(tmp_path):
    corpus = FakeCorpus(records(120))
    scores = run(FakeBundle(), corpus, tmp_path, tasks=TASKS, trained_on=corpus)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(cards.table(scores, unscored=cards.read(tmp_path).unscored))
    text = console.export_text()
    for word in ("shapes", "prevalence", "real", "phantom", "not scored", "balanced accuracy"):
        assert word in text
    nothing = replace(scores[0], value=math.nan, low=math.nan, high=math.nan)
    assert cards.same(nothing, nothing)
