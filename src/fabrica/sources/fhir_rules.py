"""What each FHIR R4 resource type says: which are about a patient, and where their code, time, value and text stand.

HL7 FHIR R4 (4.0.1), http://hl7.org/fhir/R4/resourcelist.html. Types are in three tables: CLINICAL are read;
ADMINISTRATIVE are about a patient but say nothing clinical; OTHER carry no patient.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Rule:
    """`code` paths of concepts (the first that is there; `*` each of a list), `time` paths (the first that is there),
    `end` of it as a second event, `text` paths of free text with the `role` it gets."""

    prefix: str
    code: tuple[str, ...] = ("code",)
    time: tuple[str, ...] = ()
    end: tuple[str, ...] = ()
    text: tuple[str, ...] = ("note.text",)
    role: str = "note"


_EFFECTIVE = ("effectiveDateTime", "effectivePeriod.start", "effectiveInstant")
_OCCURRENCE = ("occurrenceDateTime", "occurrencePeriod.start")
_MEDICATION = ("medicationCodeableConcept", "medicationReference")
_ONSET = ("onsetDateTime", "onsetPeriod.start", "recordedDate")

CLINICAL: Mapping[str, Rule] = MappingProxyType(
    {
        "Observation": Rule("OBSERVATION", time=(*_EFFECTIVE, "issued")),
        "Condition": Rule("CONDITION", time=_ONSET, end=("abatementDateTime", "abatementPeriod.end")),
        "AllergyIntolerance": Rule("ALLERGY", ("code", "reaction.substance"), _ONSET),
        "Procedure": Rule("PROCEDURE", time=("performedDateTime", "performedPeriod.start")),
        "Encounter": Rule("ENCOUNTER", ("type", "class"), ("period.start",), ("period.end",)),
        "EpisodeOfCare": Rule("EPISODE", ("type",), ("period.start",), ("period.end",)),
        "Immunization": Rule("IMMUNIZATION", ("vaccineCode",), ("occurrenceDateTime", "recorded")),
        "MedicationRequest": Rule("MEDICATION_ORDER", _MEDICATION, ("authoredOn",)),
        "MedicationAdministration": Rule("MEDICATION", _MEDICATION, ("effectiveDateTime", "effectivePeriod.start"),
                                         ("effectivePeriod.end",)),
        "MedicationDispense": Rule("MEDICATION_DISPENSE", _MEDICATION, ("whenHandedOver", "whenPrepared")),
        "MedicationStatement": Rule("MEDICATION_TAKEN", _MEDICATION, (*_EFFECTIVE[:2], "dateAsserted"),
                                    ("effectivePeriod.end",)),
        "DiagnosticReport": Rule("REPORT", time=(*_EFFECTIVE[:2], "issued"), text=("conclusion",), role="report"),
        "DocumentReference": Rule("DOCUMENT", ("type", "category"), ("date", "context.period.start"), text=()),
        "Composition": Rule("DOCUMENT", ("type",), ("date",), text=()),
        "ImagingStudy": Rule("IMAGING", ("procedureCode", "modality", "series.modality"), ("started",)),
        "Media": Rule("MEDIA", ("view", "modality", "type"), ("createdDateTime", "createdPeriod.start", "issued")),
        "ServiceRequest": Rule("ORDER", time=(*_OCCURRENCE, "authoredOn")),
        "DeviceRequest": Rule("DEVICE_ORDER", ("codeCodeableConcept",), (*_OCCURRENCE, "authoredOn")),
        "DeviceUseStatement": Rule("DEVICE_USED", ("reasonCode",), ("timingDateTime", "recordedOn")),
        "NutritionOrder": Rule("DIET_ORDER", ("oralDiet.type", "supplement.type", "enteralFormula.baseFormulaType"),
                               ("dateTime",)),
        "VisionPrescription": Rule("VISION_ORDER", (), ("dateWritten", "created")),
        "CarePlan": Rule("CARE_PLAN", ("category", "activity.detail.code", "title"), ("period.start", "created"),
                         text=("description", "note.text")),
        "Goal": Rule("GOAL", ("description",), ("startDate", "statusDate")),
        "Flag": Rule("FLAG", time=("period.start",), end=("period.end",)),
        "DetectedIssue": Rule("ISSUE", time=("identifiedDateTime", "identifiedPeriod.start"), text=("detail",)),
        "RiskAssessment": Rule("RISK", ("code", "condition", "method", "prediction.outcome"), _OCCURRENCE),
        "ClinicalImpression": Rule("IMPRESSION", ("code", "finding.itemCodeableConcept"), (*_EFFECTIVE[:2], "date"),
                                   text=("summary", "description", "note.text")),
        "AdverseEvent": Rule("ADVERSE_EVENT", ("event", "category"), ("date", "detected", "recordedDate")),
        "FamilyMemberHistory": Rule("FAMILY_HISTORY", (), ("date",)),
        "QuestionnaireResponse": Rule("QUESTIONNAIRE", (), ("authored",)),
        "Specimen": Rule("SPECIMEN", ("type",), ("collection.collectedDateTime", "collection.collectedPeriod.start",
                                                 "receivedTime")),
        "BodyStructure": Rule("BODY_STRUCTURE", ("morphology", "location")),
        "MolecularSequence": Rule("SEQUENCE", ("type", "referenceSeq.referenceSeqId", "variant.observedAllele")),
        "ImmunizationEvaluation": Rule("IMMUNIZATION_EVALUATION", ("targetDisease",), ("date",)),
        "ImmunizationRecommendation": Rule("IMMUNIZATION_DUE", ("recommendation.vaccineCode",
                                                                "recommendation.targetDisease"), ("date",)),
        "SupplyDelivery": Rule("SUPPLY", ("suppliedItem.itemCodeableConcept", "type"), _OCCURRENCE),
        "List": Rule("LIST", ("code", "title"), ("date",)),
        "Communication": Rule("COMMUNICATION", ("category", "topic", "reasonCode"), ("sent", "received"),
                              text=("payload.contentString", "note.text")),
        "MedicinalProductUndesirableEffect": Rule("UNDESIRABLE_EFFECT", ("symptomConditionEffect",)),
    }
)  # fmt: skip
_ADMINISTRATIVE = """
    Account AppointmentResponse Appointment AuditEvent Basic BiologicallyDerivedProduct CareTeam ChargeItem Claim
    ClaimResponse CommunicationRequest Consent Contract Coverage CoverageEligibilityRequest CoverageEligibilityResponse
    DocumentManifest EnrollmentRequest EnrollmentResponse ExplanationOfBenefit GuidanceResponse Invoice Linkage
    MeasureReport Person Provenance RelatedPerson RequestGroup ResearchSubject Schedule Slot SupplyRequest Task
"""
_OTHER = """
    ActivityDefinition Binary CapabilityStatement CatalogEntry ChargeItemDefinition CodeSystem CompartmentDefinition
    ConceptMap Device DeviceDefinition DeviceMetric EffectEvidenceSynthesis Endpoint EventDefinition Evidence
    EvidenceVariable ExampleScenario GraphDefinition Group HealthcareService ImplementationGuide InsurancePlan Library
    Location Measure Medication MedicationKnowledge MedicinalProduct MedicinalProductAuthorization
    MedicinalProductContraindication MedicinalProductIndication MedicinalProductIngredient MedicinalProductInteraction
    MedicinalProductManufactured MedicinalProductPackaged MedicinalProductPharmaceutical MessageDefinition MessageHeader
    NamingSystem ObservationDefinition OperationDefinition OperationOutcome Organization OrganizationAffiliation
    Parameters PaymentNotice PaymentReconciliation PlanDefinition Practitioner PractitionerRole Questionnaire
    ResearchDefinition ResearchElementDefinition ResearchStudy RiskEvidenceSynthesis SearchParameter SpecimenDefinition
    StructureDefinition StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer SubstanceProtein
    SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification TerminologyCapabilities TestReport
    TestScript ValueSet VerificationResult
"""
ADMINISTRATIVE, OTHER = frozenset(_ADMINISTRATIVE.split()), frozenset(_OTHER.split())
TYPES = frozenset({"Patient", "Bundle", *CLINICAL, *ADMINISTRATIVE, *OTHER})
WHO = ("subject", "patient", "individual", "beneficiary", "for")

SYSTEMS: Mapping[str, str] = MappingProxyType(
    {
        "http://loinc.org": "LOINC", "http://snomed.info/sct": "SNOMED", "urn:iso:std:iso:11073:10101": "MDC",
        "http://www.nlm.nih.gov/research/umls/rxnorm": "RxNorm", "http://hl7.org/fhir/sid/icd-10": "ICD10",
        "http://hl7.org/fhir/sid/icd-10-cm": "ICD10CM", "http://hl7.org/fhir/sid/icd-9-cm": "ICD9CM",
        "http://hl7.org/fhir/sid/cvx": "CVX", "http://hl7.org/fhir/sid/ndc": "NDC",
        "http://www.whocc.no/atc": "ATC", "http://www.ama-assn.org/go/cpt": "CPT4",
        "http://dicom.nema.org/resources/ontology/DCM": "DCM", "http://unitsofmeasure.org": "UCUM",
    }
)  # fmt: skip
NOT_DONE = frozenset({"not-done", "not-taken", "refuted", "declined", "rejected"})
WRONG = "entered-in-error"
