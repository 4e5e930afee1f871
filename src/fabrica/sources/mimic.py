"""MIMIC-III, MIMIC-IV and eICU folders -> one record a patient (eICU: a stay), through table maps.

Johnson et al., MIMIC-III (2016) and MIMIC-IV (2023); Pollard et al., eICU (2018). Codes are written as the MEDS
conversions write them ("LAB//50912//mg/dL"); codes that are billed at discharge count at the end of their admission.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref, ehr
from fabrica.sources.arrow_rows import Frame, date_of
from fabrica.sources.ehr_map import Event, People, TableMap, recognise
from fabrica.types import Record

if TYPE_CHECKING:
    import pyarrow as pa

_LOOKUP = "a dictionary of codes: it holds no patient"


def _dob(frame: Frame) -> pa.Array:
    return frame.time("dob")


def _anchor(frame: Frame) -> pa.Array:
    """The first day of the year in which the patient was born, by age and year of the anchor."""
    import pyarrow.compute as pc

    return date_of(pc.subtract(frame.number("anchor_year"), frame.number("anchor_age")))


_STAYS = (
    Event("icustays", "ICU_ADMISSION//{first_careunit}", "intime"),
    Event("icustays", "ICU_DISCHARGE//{last_careunit}", "outtime", second=True),
    Event("admissions", "HOSPITAL_ADMISSION//{admission_type}//{admission_location}", "admittime"),
    Event("admissions", "HOSPITAL_DISCHARGE//{discharge_location}", "dischtime", second=True),
)

MIMIC4 = TableMap(
    name="mimic4",
    key="subject_id",
    people=People(
        "patients", ("anchor_age", "anchor_year"), birth=_anchor, birth_reads=("anchor_year", "anchor_age"),
        static=("GENDER//{gender!}",),
    ),
    events=(
        Event("patients", "MEDS_DEATH", "dod", second=True),
        *_STAYS,
        Event("admissions", "RACE//{race!}", "admittime", second=True),
        Event("transfers", "TRANSFER//{eventtype}//{careunit}", "intime"),
        Event("services", "SERVICE//{curr_service!}", "transfertime"),
        Event("diagnoses_icd", "DIAGNOSIS//ICD//{icd_version}//{icd_code!}", visit="hadm_id"),
        Event("procedures_icd", "PROCEDURE//ICD//{icd_version}//{icd_code!}", "chartdate", visit="hadm_id"),
        Event("drgcodes", "DRG//{drg_type}//{drg_code!}", visit="hadm_id"),
        Event("hcpcsevents", "HCPCS//{hcpcs_cd!}", "chartdate"),
        Event("labevents", "LAB//{itemid!}//{valueuom}", "charttime", value="valuenum", word="value"),
        Event("microbiologyevents", "MICROBIOLOGY//{test_itemid!}//{org_itemid}", "charttime|chartdate"),
        Event("omr", "OMR//{result_name!}", "chartdate", value="result_value", word="result_value"),
        Event("prescriptions", "MEDICATION//START//{drug!}", "starttime"),
        Event("prescriptions", "MEDICATION//STOP//{drug!}", "stoptime", second=True),
        Event("emar", "MEDICATION//{medication!}//{event_txt}", "charttime"),
        Event("chartevents", "CHART//{itemid!}//{valueuom}", "charttime", value="valuenum", word="value"),
        Event("outputevents", "OUTPUT//{itemid!}//{valueuom}", "charttime", value="value"),
        Event("inputevents", "INPUT//{itemid!}//{amountuom}", "starttime", value="amount"),
        Event("procedureevents", "PROCEDURE_EVENT//{itemid!}//{valueuom}", "starttime", value="value"),
        Event("datetimeevents", "DATETIME//{itemid!}", "charttime"),
        Event("discharge", "note", "charttime", text="text"),
        Event("radiology", "report", "charttime", text="text"),
    ),
    visits=("admissions", "hadm_id", "dischtime"),
    folders=("hosp", "icu", "ed", "note"),
    ignored=MappingProxyType(
        {
            **dict.fromkeys(("d_labitems", "d_items", "d_icd_diagnoses", "d_icd_procedures", "d_hcpcs"), _LOOKUP),
            "emar_detail": "doses of emar rows, which are read", "poe": "orders, not what was done",
            "poe_detail": "orders, not what was done", "pharmacy": "orders, read from prescriptions",
            "provider": "staff", "caregiver": "staff", "ingredientevents": "ingredients of inputevents, which are read",
            "discharge_detail": "fields of discharge", "radiology_detail": "fields of radiology",
        }
    ),
)  # fmt: skip

MIMIC3 = TableMap(
    name="mimic3",
    key="subject_id",
    people=People("patients", ("dob",), birth=_dob, birth_reads=("dob",), static=("GENDER//{gender!}",)),
    events=(
        Event("patients", "MEDS_DEATH", "dod", second=True),
        *_STAYS,
        Event("admissions", "RACE//{ethnicity!}", "admittime", second=True),
        Event("transfers", "TRANSFER//{eventtype}//{curr_careunit}", "intime"),
        Event("services", "SERVICE//{curr_service!}", "transfertime"),
        Event("diagnoses_icd", "DIAGNOSIS//ICD//9//{icd9_code!}", visit="hadm_id"),
        Event("procedures_icd", "PROCEDURE//ICD//9//{icd9_code!}", visit="hadm_id"),
        Event("drgcodes", "DRG//{drg_type}//{drg_code!}", visit="hadm_id"),
        Event("cptevents", "CPT//{cpt_cd!}", "chartdate", visit="hadm_id"),
        Event("labevents", "LAB//{itemid!}//{valueuom}", "charttime", value="valuenum", word="value"),
        Event("microbiologyevents", "MICROBIOLOGY//{spec_itemid!}//{org_itemid}", "charttime|chartdate"),
        Event("prescriptions", "MEDICATION//START//{drug!}", "startdate"),
        Event("prescriptions", "MEDICATION//STOP//{drug!}", "enddate", second=True),
        Event("chartevents", "CHART//{itemid!}//{valueuom}", "charttime", value="valuenum", word="value"),
        Event("outputevents", "OUTPUT//{itemid!}//{valueuom}", "charttime", value="value"),
        Event("inputevents_mv", "INPUT//{itemid!}//{amountuom}", "starttime", value="amount"),
        Event("inputevents_cv", "INPUT//{itemid!}//{amountuom}", "charttime", value="amount"),
        Event("procedureevents_mv", "PROCEDURE_EVENT//{itemid!}//{valueuom}", "starttime", value="value"),
        Event("datetimeevents", "DATETIME//{itemid!}", "charttime"),
        Event("noteevents", "note", "charttime|chartdate", text="text"),
    ),
    visits=("admissions", "hadm_id", "dischtime"),
    ignored=MappingProxyType(
        {
            **dict.fromkeys(("d_labitems", "d_items", "d_icd_diagnoses", "d_icd_procedures", "d_cpt"), _LOOKUP),
            "caregivers": "staff", "callout": "requests to leave the unit, not what was done",
        }
    ),
)  # fmt: skip

_VITALS = ("temperature", "sao2", "heartrate", "respiration", "cvp", "etco2", "systemicsystolic", "systemicdiastolic",
           "systemicmean", "pasystolic", "padiastolic", "pamean", "st1", "st2", "st3", "icp")  # fmt: skip
_CUFF = ("noninvasivesystolic", "noninvasivediastolic", "noninvasivemean", "paop", "cardiacoutput", "svr", "pvr")

EICU = TableMap(
    name="eicu",
    key="patientunitstayid",
    people=People(
        "patient", ("uniquepid",), age="age", subject="uniquepid", groups=MappingProxyType({"site": "hospitalid"}),
        static=("GENDER//{gender!}", "RACE//{ethnicity!}", "UNIT//{unittype!}", "ICU_ADMISSION//{unitadmitsource!}",
                "APACHE_ADMISSION_DX//{apacheadmissiondx!}"),
    ),
    events=(
        Event("patient", "ICU_DISCHARGE//{unitdischargelocation}//{unitdischargestatus}", "unitdischargeoffset",
              second=True),
        Event("patient", "HOSPITAL_DISCHARGE//{hospitaldischargelocation}//{hospitaldischargestatus}",
              "hospitaldischargeoffset", second=True),
        Event("lab", "LAB//{labname!}//{labmeasurenamesystem}", "labresultoffset", value="labresult",
              word="labresulttext"),
        Event("diagnosis", "DIAGNOSIS//{diagnosisstring!}", "diagnosisoffset"),
        Event("diagnosis", "DIAGNOSIS//ICD//{icd9code!}", "diagnosisoffset", second=True, split=", "),
        Event("admissiondx", "ADMISSION_DX//{admitdxpath!}", "admitdxenteredoffset"),
        Event("treatment", "TREATMENT//{treatmentstring!}", "treatmentoffset"),
        Event("medication", "MEDICATION//START//{drugname|drughiclseqno!}", "drugstartoffset"),
        Event("medication", "MEDICATION//STOP//{drugname|drughiclseqno!}", "drugstopoffset", second=True),
        Event("infusiondrug", "INFUSION//{drugname!}", "infusionoffset", value="drugrate"),
        Event("physicalexam", "EXAM//{physicalexampath!}", "physicalexamoffset", value="physicalexamvalue"),
        Event("pasthistory", "HISTORY//{pasthistorypath!}", "pasthistoryoffset"),
        Event("allergy", "ALLERGY//{allergyname!}", "allergyoffset"),
        Event("intakeoutput", "INTAKE_OUTPUT//{celllabel!}", "intakeoutputoffset", value="cellvaluenumeric"),
        Event("nursecharting", "CHART//{nursingchartcelltypevallabel!}//{nursingchartcelltypevalname}",
              "nursingchartoffset", value="nursingchartvalue", word="nursingchartvalue"),
        Event("respiratorycharting", "RESPIRATORY//{respchartvaluelabel!}", "respchartoffset", value="respchartvalue",
              word="respchartvalue"),
        Event("microlab", "MICROBIOLOGY//{culturesite}//{organism}", "culturetakenoffset"),
        *(Event("vitalperiodic", f"VITAL//{v}", "observationoffset", value=v, second=True) for v in _VITALS),
        *(Event("vitalaperiodic", f"VITAL//{v}", "observationoffset", value=v, second=True) for v in _CUFF),
        Event("note", "note", "noteoffset", text="notetext"),
    ),
    minutes=True,
    ignored=MappingProxyType({"hospital": "a dictionary of hospitals: it holds no patient"}),
)  # fmt: skip

MAPS: Mapping[str, TableMap] = MappingProxyType({m.name: m for m in (MIMIC4, MIMIC3, EICU)})


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """The records of the database whose table of patients `ref` is (`patients.csv.gz`, eICU's `patient.csv`).

    Refused: `ehr_unknown` where none of the maps fits; else see `sources.ehr.read`. Your own tables: write a `TableMap`
    and call `ehr.read(ref, map)`.
    """
    map = recognise(ref.path, tuple(MAPS.values()), limits)
    if map is None:
        raise Refused("ehr_unknown", f"the tables beside {ref.path.name!r} fit none of {', '.join(MAPS)}")
    yield from ehr.read(ref, map, limits)
