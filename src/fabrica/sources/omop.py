"""OMOP common data model folders -> one record a person: visits, conditions, drugs, measurements, notes.

OHDSI, "OMOP Common Data Model" 5.3/5.4. A concept is written by its vocabulary ("CONDITION//SNOMED//38341003") where
the folder has the `concept` table, else by its number ("CONDITION//OMOP//320128"), concept 0 by what the source said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref, ehr
from fabrica.sources.arrow_rows import Frame, Trouble, batches, date_of
from fabrica.sources.ehr_map import Event, People, TableMap, recognise
from fabrica.types import Record

if TYPE_CHECKING:
    import pyarrow as pa

_VOCABULARY = "a vocabulary table: it may name codes, it holds no patient"
_DERIVED = "derived from tables that are read"
_BIRTH = ("birth_datetime", "year_of_birth", "month_of_birth", "day_of_birth")


def _birth(frame: Frame) -> pa.Array:
    """The date of birth; missing months and days are the first."""
    import pyarrow.compute as pc

    whole = date_of(*(frame.number(n) for n in _BIRTH[1:]))
    return pc.coalesce(frame.time("birth_datetime"), whole) if "birth_datetime" in frame else whole


def _concept(kind: str, name: str, source: str = "") -> str:
    """A code before its vocabulary is known: the source's own value stands between marks that `_rewrite` takes away."""
    return f"{kind}//OMOP//{{{name}_concept_id}}" + (f"\x1f{{{source}}}\x1f" if source else "")


def _start(name: str) -> str:
    return f"{name}_start_datetime|{name}_start_date"


OMOP = TableMap(
    name="omop",
    key="person_id",
    people=People(
        "person", ("gender_concept_id", "year_of_birth"), birth=_birth, birth_reads=_BIRTH,
        static=(_concept("GENDER", "gender", "gender_source_value"), _concept("RACE", "race", "race_source_value"),
                _concept("ETHNICITY", "ethnicity", "ethnicity_source_value")),
    ),
    events=(
        Event("death", "MEDS_DEATH", "death_datetime|death_date"),
        Event("visit_occurrence", _concept("VISIT", "visit"), _start("visit")),
        Event("visit_occurrence", _concept("VISIT_END", "visit"), "visit_end_datetime|visit_end_date", second=True),
        Event("visit_detail", _concept("VISIT_DETAIL", "visit_detail"), _start("visit_detail")),
        Event("condition_occurrence", _concept("CONDITION", "condition", "condition_source_value"),
              _start("condition")),
        Event("drug_exposure", _concept("DRUG", "drug", "drug_source_value"), _start("drug_exposure")),
        Event("procedure_occurrence", _concept("PROCEDURE", "procedure", "procedure_source_value"),
              "procedure_datetime|procedure_date"),
        Event("device_exposure", _concept("DEVICE", "device", "device_source_value"), _start("device_exposure")),
        Event("measurement",
              _concept("MEASUREMENT", "measurement", "measurement_source_value") + "//{unit_source_value}",
              "measurement_datetime|measurement_date", value="value_as_number", word="value_source_value"),
        Event("observation", _concept("OBSERVATION", "observation", "observation_source_value"),
              "observation_datetime|observation_date", value="value_as_number", word="value_as_string"),
        Event("specimen", _concept("SPECIMEN", "specimen"), "specimen_datetime|specimen_date"),
        Event("note", "note", "note_datetime|note_date", text="note_text"),
    ),
    ignored=MappingProxyType(
        {
            **dict.fromkeys(
                ("concept", "vocabulary", "domain", "concept_class", "concept_relationship", "relationship",
                 "concept_synonym", "concept_ancestor", "drug_strength", "source_to_concept_map"), _VOCABULARY),
            **dict.fromkeys(("drug_era", "dose_era", "condition_era", "note_nlp", "cohort"), _DERIVED),
            **dict.fromkeys(("location", "care_site", "provider", "cdm_source", "metadata", "cohort_definition",
                             "attribute_definition"), "places, staff and papers: no events"),
            **dict.fromkeys(("payer_plan_period", "cost", "observation_period", "fact_relationship", "episode",
                             "episode_event"), "administration: no events"),
        }
    ),
    names=lambda files, seen, limits: _rewrite(files, seen, limits),
)  # fmt: skip
_CODE = re.compile(
    r"^(?P<kind>\w+)//OMOP//(?P<id>[^/\x1f]*)(\x1f(?P<source>[^\x1f]*)\x1f?)?(?P<rest>//.*)?$", re.DOTALL
)


def _rewrite(files: Mapping[str, Path], seen: set[str], limits: Limits) -> dict[str, str]:
    """Codes as they are read -> codes as they are kept."""
    parts = {code: m for code in seen if (m := _CODE.match(code))}
    known = _vocabulary(files.get("concept"), {m["id"] for m in parts.values()} - {"0"}, limits)
    rewritten = {}
    for code, m in parts.items():
        if m["id"] in ("", "0"):
            name = f"SOURCE//{m['source'].strip()}" if (m["source"] or "").strip() else "OMOP//0"
        else:
            name = known.get(m["id"], f"OMOP//{m['id']}")
        rewritten[code] = f"{m['kind']}//{name}{m['rest'] or ''}"
    return rewritten


def _vocabulary(path: Path | None, wanted: set[str], limits: Limits) -> dict[str, str]:
    """ "SNOMED//38341003" of the concepts that are used; the table itself (millions of rows) is never held."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: dict[str, str] = {}
    if path is None or not wanted:
        return found
    used = pa.array(sorted(wanted), pa.string())
    for frame in batches(path, {"concept_id", "vocabulary_id", "concept_code"}, Trouble(), limits):
        ids = frame.key("concept_id")
        at = pc.indices_nonzero(pc.is_in(ids, value_set=used))
        columns = (ids, frame.text("vocabulary_id"), frame.text("concept_code"))
        for id, vocabulary, code in zip(*(c.take(at).to_pylist() for c in columns), strict=True):
            if vocabulary and code:
                found[id] = f"{vocabulary}//{code}"
    return found


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a person of `ref`, the `person` table, from it and the tables beside it.

    Refused: `ehr_unknown` where no table of events stands beside it; else see `sources.ehr.read`.
    """
    if recognise(ref.path, (OMOP,), limits) is None:
        raise Refused("ehr_unknown", f"{ref.path.name!r} is no OMOP person table with tables of events beside it")
    yield from ehr.read(ref, OMOP, limits)
