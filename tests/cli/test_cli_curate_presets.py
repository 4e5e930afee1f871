"""`fabrica curate CORPUS SYSTEM --preset NAME`: a folder of articles to an archive, by each preset, and wrong names."""

from pathlib import Path

import pytest

from command_line import inside
from fabrica.corpus import Corpus
from fabrica.systems import load_system


@pytest.fixture(scope="module")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of six synthetic articles, read from a folder of XML and pictures."""
    from fabrica.phantom.articles import articles as drawn
    from fabrica.phantom.articles import write_folder

    folder = tmp_path_factory.mktemp("presets")
    write_folder(drawn(6, 4, malformed=0.0, size=32), folder / "pmc")
    ran = inside("ingest", "pmc", "--into", "raw", "--licence", "CC-BY-4.0", "--json", cwd=folder)
    assert ran.code == 0, ran.err
    assert ran.data["quarantined"] == {}
    return folder


@pytest.mark.parametrize("preset", list(load_system("biomedica").settings))
def test_biomedica_makes_an_archive_by_every_preset(articles: Path, preset: str) -> None:
    ran = inside("curate", "raw", "biomedica", "--preset", preset, "--into", f"out-{preset}", "--json", cwd=articles)
    assert ran.code == 0, ran.err
    assert ran.data["kept"] == ran.data["read"] > 12
    made = list(Corpus.open(articles / f"out-{preset}").scan(roles=()))
    assert {r.split for r in made} <= {"train", "valid", "val", "test"}
    assert all(r.split for r in made)
    figures = [r for r in made if r.groups["modality"] == "figure"]
    assert figures
    assert all("panel_type" in r.groups for r in figures)


def test_the_preset_by_default_is_the_papers(articles: Path) -> None:
    ran = inside("curate", "raw", "biomedica", "--into", "dry", "--dry-run", "--json", cwd=articles)
    names = [step["name"] for step in ran.data["plan"]]
    assert {"latest_version", "figure_copies"} <= set(names)


def test_a_wrong_preset_and_a_system_without_a_plan(articles: Path) -> None:
    wrong = inside("curate", "raw", "biomedica", "--preset", "papre", "--into", "x", cwd=articles)
    wrong.refused(2, "papre", "paper")
    inside("curate", "raw", "biomedclip", "--into", "x", cwd=articles).refused(2, "makes no data set", "biomedica")
    assert not (articles / "x").exists()
