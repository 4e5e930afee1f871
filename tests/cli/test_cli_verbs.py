"""The five verbs one after the other on a small synthetic clinic, as the first hour of a new user goes."""

import json
from pathlib import Path

import pytest

from command_line import Ran, fabrica, inside

JOB = """title = "clinic"
[[source]]
name = "phantom"
phantom = 12
[curate.split]
train = 0.6
test = 0.4
[[task]]
kind = "retrieval"
name = "reports"
[[task]]
kind = "linear_probe"
name = "findings"
labels = ["cyst", "mass"]
exclusive = false
fractions = [1.0]
"""


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fabrica.phantom import hospital

    folder = tmp_path_factory.mktemp("clinic")
    hospital.write(folder / "files", n_per_modality=16, seed=0, modalities=("ultrasound",), n_broken=1, size=64)
    (folder / "clinic.toml").write_text(JOB)
    return folder


@pytest.fixture(scope="module")
def ingested(clinic: Path) -> Ran:
    said = json.loads((clinic / "files" / "manifest.json").read_text())["tables"][0]["columns"]
    columns = [f"--column={k}={v}" for k, v in said.items()]
    args = ["ingest", "files/ultrasound.csv", "--into", "raw", "--name", "us", "--licence", "CC0-1.0", *columns]
    dry = inside(*args, "--dry-run", "--json", cwd=clinic)
    assert dry.data["files"] == {"table": 1}
    assert set(dry.data["cost"]) == {"minutes", "memory_mib", "disk_mib"}
    assert not (clinic / "raw").exists(), "a dry run writes nothing"
    return inside(*args, "--json", cwd=clinic)


@pytest.fixture(scope="module")
def curated(clinic: Path, ingested: Ran) -> Ran:
    args = ["curate", "raw", "clinic.toml", "--into", "corpus"]
    dry = inside(*args, "--dry-run", "--json", cwd=clinic).data
    assert [s["name"] for s in dry["plan"]][-1] == "by_subject"
    assert not (clinic / "corpus").exists()
    return inside(*args, "--json", cwd=clinic)


@pytest.fixture(scope="module")
def trained(clinic: Path, curated: Ran) -> Ran:
    args = ["train", "convirt", "--data", "corpus", "--out", "trained", "--steps", "3"]
    dry = inside(*args, "--dry-run", "--json", cwd=clinic).data
    assert dry["minutes"] > 0
    assert dry["memory_bytes"] > 1e8
    assert not (clinic / "trained").exists()
    return inside(*args, "--json", cwd=clinic)


@pytest.fixture(scope="module")
def judged(clinic: Path, trained: Ran) -> Ran:
    args = ["evaluate", "trained/model", "--on", "clinic.toml", "--data", "corpus", "--out", "eval"]
    dry = inside(*args, "--dry-run", "--json", cwd=clinic).data
    assert {t["task"] for t in dry["tasks"]} == {"reports", "findings"}
    assert not (clinic / "eval").exists()
    return inside(*args, "--json", cwd=clinic)


def test_ingest(clinic: Path, ingested: Ran) -> None:
    assert ingested.code == 0
    assert ingested.data["records"] >= 16
    assert sum(ingested.data["quarantined"].values()) == 1


def test_limit(clinic: Path) -> None:
    ran = inside("ingest", "files/ultrasound", "--into", "few", "--limit", "3", cwd=clinic)
    assert ran.out.startswith("3 records into few, 0 already there")


def test_curate(clinic: Path, curated: Ran) -> None:
    report = curated.data
    assert report["read"] == report["kept"] + sum(n for r in report["dropped"].values() for n in r.values())
    again = inside("curate", "raw", "clinic.toml", "--into", "corpus", "--json", cwd=clinic).data
    assert again["resumed"]
    assert again["kept"] == report["kept"]


def test_curate_on_daft_with_a_limit(clinic: Path, ingested: Ran) -> None:
    """In a process of its own: Daft keeps its runner for as long as the process lives."""
    args = ["curate", "raw", "clinic.toml", "--limit", "5", "--json"]
    here = inside(*args, "--into", "five", cwd=clinic).data
    there = fabrica(*args, "--into", "five-daft", "--runner", "daft", "--workers", "1", cwd=clinic).data
    assert here["read"] == there["read"] == 5
    assert (here["kept"], here["dropped"], here["failed"]) == (there["kept"], there["dropped"], 0)
    inside(*args, "--into", "x", "--runner", "spark", cwd=clinic).refused(2, "spark", "daft", "ray")


def test_train(clinic: Path, trained: Ran) -> None:
    assert trained.data["steps"] == 3
    assert trained.data["loss"] > 0
    assert (clinic / "trained" / "model" / "model.safetensors").is_file()
    again = inside("train", "convirt", "--data", "corpus", "--out", "trained", "--steps", "3", "--json", cwd=clinic)
    assert again.data["resumed_from"] == 3
    other = inside("train", "convirt", "--data", "corpus", "--out", "trained", "--steps", "4", cwd=clinic)
    other.refused(2, "another run", "steps")


def test_evaluate(clinic: Path, judged: Ran) -> None:
    scores = judged.data["scores"]
    assert {s["arm"] for s in scores} >= {"model", "chance", "pixels", "border only", "prevalence"}
    assert all(s["low"] <= s["value"] <= s["high"] and s["n"] > 0 for s in scores if s["arm"] == "model")
    text = inside("evaluate", "trained/model", "--on", "clinic.toml", "--data", "corpus", "--out", "eval", cwd=clinic)
    assert "95 % interval" in text.out
    assert "model minus chance" in text.out


def test_limits_of_train_and_evaluate(clinic: Path, trained: Ran) -> None:
    ran = inside("train", "convirt", "--data", "corpus", "--out", "few-m", "--steps", "2", "--limit", "4", cwd=clinic)
    assert ran.code == 0
    args = ["evaluate", "trained/model", "--on", "clinic.toml", "--data", "corpus", "--out", "few-e", "--limit", "4"]
    dry = inside(*args, "--dry-run", "--json", cwd=clinic).data
    assert {t["judged"] for t in dry["tasks"]} == {4}
    scores = inside(*args, "--json", cwd=clinic).data["scores"]
    assert {s["n"] for s in scores if s["task"].startswith("reports")} <= {1, 2, 3, 4}


def test_a_leak_is_refused_and_marked_where_allowed(clinic: Path, trained: Ran) -> None:
    """Judged on the training part itself."""
    job = (
        (clinic / "clinic.toml")
        .read_text()
        .replace('name = "reports"', 'name = "reports"\nwhere = "split = \'train\'"')
    )
    (clinic / "leak.toml").write_text(job)
    args = ["evaluate", "trained/model", "--on", "leak.toml", "--data", "corpus", "--out", "leak"]
    ran = inside(*args, "--json", cwd=clinic)
    ran.refused(5, "subject", "--allow-leak")
    assert ran.data["error"] == "leak"
    assert not list(clinic.glob("leak/**/*.parquet")), "no score was computed"
    ran = inside(*args, "--allow-leak", "--json", cwd=clinic)
    assert all("leak" in s["note"].lower() or "share" in s["note"].lower() for s in ran.data["scores"])


def test_a_corpus_that_lost_its_data_gives_one_message(clinic: Path, curated: Ran) -> None:
    import shutil

    shutil.copytree(clinic / "corpus", clinic / "broken")
    for file in (clinic / "broken" / "payload").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    ran = fabrica("train", "convirt", "--data", "broken", "--out", "none", "--steps", "2", cwd=clinic)
    ran.refused(ran.code if ran.code in (2, 3) else 2, "broken")
