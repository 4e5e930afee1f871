"""What every system must do, at tiny size: list without import, learn, save and load, take any subset of its kinds."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fabrica.errors import UsageError
from fabrica.models import Bundle
from fabrica.phantom import bodies, hearts, hospital, oncology, p1
from fabrica.phantom.cohort import cohort
from fabrica.systems import headline, load_system, names
from fabrica.train import fit
from fabrica.types import Absent, Item, Record, System

STEPS = 60


@pytest.fixture(scope="module")
def pairs() -> list[Record]:
    """96 synthetic images with reports."""
    return list(p1(96, seed=11).records())


@pytest.fixture(scope="module")
def triples() -> list[Record]:
    """64 synthetic patients with X-ray, ECG and laboratory tests."""
    made = hospital.joint(64, ("xray", "ecg", "labs"), 11)
    return [renamed(r) for r in made]


@pytest.fixture(scope="module")
def texts(pairs: list[Record]) -> list[Record]:
    """Pairs of texts: what is asked and what is to be found, here a report twice."""
    return [r.updated(items={"query": r.items["report"], "document": r.items["report"]}) for r in pairs]


@pytest.fixture(scope="module")
def turns(pairs: list[Record]) -> list[Record]:
    """What is asked and what is answered: the first words of a report, and the report."""
    return [r.updated(items={"prompt": (start(r.items["report"][0]),), "answer": r.items["report"]}) for r in pairs]


def start(report: Item) -> Item:
    return replace(report, value=" ".join(report.text().split()[:6]))


@pytest.fixture(scope="module")
def drawn() -> list[Record]:
    """40 synthetic slices with strokes, 24 masks of other patients."""
    return hearts.records(40, 11, what="scribble") + hearts.records(24, 11, what="mask", start=100)


@pytest.fixture(scope="module")
def labelled() -> list[Record]:
    """Eight sets of 6 synthetic volumes, each with one organ labelled."""
    return bodies.sets(6, 11)


@pytest.fixture(scope="module")
def bags() -> list[Record]:
    """64 synthetic patients with a slide's patches, genes and a time to death."""
    return oncology.additive(64, 11, patches=(4, 12))


@pytest.fixture(scope="module")
def people() -> list[Record]:
    """64 synthetic people with an image and a table of numbers and categories."""
    return list(cohort(64, 11).records())


@pytest.fixture(scope="module")
def marked() -> list[Record]:
    """48 synthetic reports with their exact graphs."""
    from fabrica.phantom.report_graphs import records

    return records(48, 11)


def renamed(record: Record) -> Record:
    roles = {"image/xray": "image", "table/labs": "labs"}
    return record.updated(items={roles.get(k, k): v for k, v in record.items.items()})


@pytest.fixture(params=names())
def system(request: pytest.FixtureRequest) -> tuple[str, System]:
    return request.param, load_system(request.param)


def data_for(system: System, request: pytest.FixtureRequest) -> list[Record]:
    """Records that have every kind that a system reads."""
    kinds = {
        "ecg": "triples", "query": "texts", "answer": "turns", "table": "people", "slide": "bags", "report": "marked",
    }  # fmt: skip
    kind = next((kind for field, kind in kinds.items() if field in system.reads), "pairs")
    if "segment" in system.tasks:
        kind = "labelled" if ("volume",) in system.reads.values() else "drawn"
    wanted: Any = request.getfixturevalue(kind)
    return list(wanted)


def tiny(system: System, records: Sequence[Record], **changes: Any) -> tuple[Bundle, Any]:
    settings = replace(system.settings["tiny"], **{"steps": STEPS, "batch": 16, **changes})
    torch.manual_seed(0)
    return system.build(settings, records), settings


def test_listing_imports_no_system() -> None:
    code = (
        "import sys; from fabrica.systems import names, headline; [headline(n) for n in names()]; "
        "print([m for m in sys.modules if m.startswith('fabrica.systems.')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_headline_is_what_the_system_says(system: tuple[str, System]) -> None:
    name, found = system
    said = headline(name)
    assert (said.seed, said.title, said.claim) == (found.seed, found.title, found.claim)
    assert found.paper
    assert found.departs
    assert {"paper", "tiny"} <= set(found.settings)


def test_each_stage_has_a_finite_loss_that_falls(
    system: tuple[str, System], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    records = data_for(system[1], request)
    bundle, settings = tiny(system[1], records)
    stages = system[1].stages(settings, bundle)
    result = fit(bundle, stages, records, tmp_path, save_every=0)
    assert all(math.isfinite(v) for v in result.losses)
    start = 0
    for stage in stages:
        losses = result.losses[start : start + stage.schedule.steps]
        start += stage.schedule.steps
        assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10]), stage.name


def test_saved_and_loaded_models_agree(
    system: tuple[str, System], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    records = data_for(system[1], request)[:8]
    bundle, _ = tiny(system[1], records)
    loaded = type(bundle).from_pretrained(bundle.save_pretrained(tmp_path / "model"))
    for field in bundle.fields:
        before, after = bundle.embed(records, field), loaded.embed(records, field)
        assert before[0] == after[0]
        np.testing.assert_allclose(before[1], after[1], atol=1e-6)
        np.testing.assert_array_equal(before[2], after[2])


def test_any_subset_of_kinds_is_accepted(
    system: tuple[str, System], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A third of the records lack each kind in turn: training runs, embeddings are finite, presence tells the truth."""
    whole = data_for(system[1], request)
    kinds = list(system[1].reads.values())
    records = [lacking(r, kinds[i % len(kinds)]) if i % 3 == 0 else r for i, r in enumerate(whole)]
    bundle, settings = tiny(system[1], records, steps=3)
    fit(bundle, system[1].stages(settings, bundle), records, tmp_path, save_every=0)
    for field, roles in system[1].reads.items():
        _, rows, present = bundle.embed(records, field)
        assert np.isfinite(rows).all()
        assert present.tolist() == [r.first(*roles) is not None for r in records]


def lacking(record: Record, roles: Sequence[str]) -> Record:
    """The record with the items of `roles` absent: the role is there, the value is not."""
    gone = {
        role: tuple(replace(i, value=Absent.NOT_DONE) for i in items) if role.split("/")[0] in roles else items
        for role, items in record.items.items()
    }
    return record.updated(items=gone)


def test_a_masked_item_equals_a_record_without_it(system: tuple[str, System], request: pytest.FixtureRequest) -> None:
    records = data_for(system[1], request)[:6]
    bundle, _ = tiny(system[1], records)
    for field, roles in system[1].reads.items():
        masked = [lacking(r, roles) if i == 2 else r for i, r in enumerate(records)]
        without = [k for k in records[2].items if k.split("/")[0] in roles]
        gone = [r.without(*without) if i == 2 else r for i, r in enumerate(records)]
        for other in bundle.fields:
            np.testing.assert_allclose(bundle.embed(masked, other)[1], bundle.embed(gone, other)[1], atol=1e-6)
        assert not bundle.embed(masked, field)[2][2]


def test_an_unknown_name_gives_the_near_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'convirt'"):
        load_system("convrit")
