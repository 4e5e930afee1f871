"""Words of synthetic case reports: diseases with their own signs, and the narrative of one invented patient."""

from __future__ import annotations

import random
from dataclasses import dataclass

SIGNS = (  # a sign and other words for it: writers differ, which is what a search by words alone suffers from
    ("fever", "pyrexia", "raised temperature"), ("cough", "coughing fits"),
    ("dyspnoea", "shortness of breath", "breathlessness"), ("haemoptysis", "coughing up of blood"),
    ("chest pain", "thoracic pain", "retrosternal discomfort"), ("palpitations", "a racing heartbeat"),
    ("syncope", "fainting", "loss of consciousness"), ("headache", "cephalalgia"), ("vertigo", "dizziness"),
    ("seizures", "convulsions", "epileptic fits"), ("hemiparesis", "one-sided weakness"),
    ("diplopia", "double vision"), ("ptosis", "drooping of the eyelid"), ("dysphagia", "difficulty swallowing"),
    ("dysarthria", "slurred speech"), ("ataxia", "unsteady gait"), ("paraesthesia", "tingling"),
    ("tinnitus", "ringing in the ears"), ("hoarseness", "dysphonia"), ("epistaxis", "nosebleeds"),
    ("abdominal pain", "belly ache", "epigastric tenderness"), ("vomiting", "emesis"), ("diarrhoea", "loose stools"),
    ("constipation", "obstipation"), ("melaena", "tarry stools"), ("haematochezia", "rectal bleeding"),
    ("jaundice", "icterus", "yellow sclerae"), ("ascites", "abdominal fluid"), ("hepatomegaly", "an enlarged liver"),
    ("splenomegaly", "an enlarged spleen"), ("haematuria", "blood in the urine"),
    ("oliguria", "reduced urine output"), ("polyuria", "excessive urination"), ("dysuria", "burning micturition"),
    ("flank pain", "loin ache"), ("oedema", "swelling of the legs"), ("arthralgia", "painful joints"),
    ("myalgia", "muscle aches"), ("back pain", "lumbago"), ("rash", "exanthema", "skin eruption"),
    ("pruritus", "itching"), ("purpura", "petechiae"), ("alopecia", "hair loss"), ("oral ulcers", "aphthae"),
    ("lymphadenopathy", "swollen nodes"), ("weight loss", "cachexia"), ("night sweats", "nocturnal sweating"),
    ("fatigue", "exhaustion", "asthenia"), ("anorexia", "poor appetite"), ("galactorrhoea", "milky discharge"),
    ("goitre", "a neck mass"), ("exophthalmos", "proptosis"), ("photophobia", "light sensitivity"),
    ("visual loss", "failing sight"), ("hallucinations", "visions"), ("confusion", "disorientation"),
    ("tremor", "shaking hands"), ("clubbing", "drumstick fingers"), ("cyanosis", "bluish lips"),
    ("pallor", "a pale skin"),
)  # fmt: skip
# of each: two ways to say it, then words that go with it
ORGANS = (
    ("hepatic", "liver", "portal vein", "biliary tree", "transaminases", "hepatocytes", "right lobe", "segment VI",
     "bile duct", "coagulopathy"),
    ("renal", "kidney", "creatinine clearance", "proteinuria", "glomeruli", "renal pelvis", "ureter", "nephron",
     "urinary sediment", "hydronephrosis"),
    ("pulmonary", "lung", "bronchoscopy", "spirometry", "pleural effusion", "alveolar lavage", "upper lobe",
     "oxygen saturation", "mediastinum", "bronchus"),
    ("cardiac", "heart", "echocardiography", "ejection fraction", "left ventricle", "mitral valve", "troponin",
     "pericardium", "sinus rhythm", "atrium"),
    ("gastric", "stomach", "gastroscopy", "antrum", "pylorus", "fundus", "mucosal biopsy", "lesser curvature",
     "gastrin", "nasogastric tube"),
    ("splenic", "spleen", "splenectomy", "left upper quadrant", "splenic hilum", "red pulp", "sequestration",
     "Howell-Jolly bodies", "splenic artery", "capsule"),
    ("thyroid", "thyroidal", "thyrotropin", "fine needle aspiration", "isthmus", "calcitonin",
     "recurrent laryngeal nerve", "follicles", "scintigraphy", "colloid"),
    ("adrenal", "suprarenal", "cortisol", "metanephrines", "aldosterone", "adrenalectomy", "cortex",
     "dexamethasone test", "catecholamines", "medulla"),
    ("cerebral", "brain", "lumbar puncture", "frontal lobe", "white matter", "craniotomy", "cerebrospinal fluid",
     "basal ganglia", "electroencephalogram", "ventricles"),
    ("ovarian", "ovary", "CA-125", "adnexa", "oophorectomy", "menarche", "transvaginal probe", "follicle",
     "pelvic washings", "fallopian tube"),
    ("colonic", "large bowel", "colonoscopy", "sigmoid", "caecum", "hemicolectomy", "haustra",
     "faecal calprotectin", "polyp", "splenic flexure"),
    ("pancreatic", "pancreas", "lipase", "pancreatic duct", "amylase", "uncinate process", "Whipple operation",
     "islets", "steatorrhoea", "head and body"),
    ("cutaneous", "skin", "punch biopsy", "dermis", "epidermis", "dermoscopy", "keratinocytes", "plaques",
     "forearm", "topical treatment"),
    ("ocular", "eye", "slit lamp", "fundoscopy", "retina", "vitreous", "intraocular pressure", "optic disc",
     "visual acuity", "choroid"),
    ("spinal", "spine", "laminectomy", "vertebral body", "cord compression", "dura", "thoracic level",
     "sphincter control", "intervertebral disc", "kyphosis"),
    ("vesical", "bladder", "cystoscopy", "trigone", "urothelium", "detrusor", "urethral catheter", "bladder wall",
     "voiding", "cystectomy"),
)  # fmt: skip
PROCESSES = (
    ("angiosarcoma", "malignant vascular tumour", "CD31 staining", "spindle cells", "wide excision", "paclitaxel",
     "anastomosing vessels", "metastases", "mitoses", "factor VIII antigen"),
    ("lymphoma", "lymphoid malignancy", "CD20-positive cells", "bone marrow biopsy", "Ki-67 index",
     "chemotherapy cycles", "Ann Arbor stage", "B symptoms", "germinal centre", "flow cytometry"),
    ("abscess", "purulent collection", "drainage", "pus", "blood cultures", "gram stain", "leucocytosis",
     "pigtail catheter", "Klebsiella", "intravenous antibiotics"),
    ("tuberculosis", "mycobacterial infection", "acid-fast bacilli", "caseating granulomas",
     "interferon-gamma release assay", "rifampicin", "Ziehl-Neelsen stain", "sputum smear", "close contact",
     "ethambutol"),
    ("sarcoidosis", "granulomatous disease", "non-caseating granulomas", "angiotensin-converting enzyme",
     "hilar nodes", "hypercalcaemia", "steroid taper", "giant cells", "gallium scan", "uveitis"),
    ("amyloidosis", "amyloid disease", "Congo red", "apple-green birefringence", "light chains", "melphalan",
     "serum electrophoresis", "transthyretin", "kappa to lambda ratio", "deposits"),
    ("vasculitis", "angiitis", "antineutrophil antibodies", "fibrinoid necrosis", "pulse steroids",
     "microaneurysms", "mononeuritis", "plasma exchange", "sedimentation rate", "leukocytoclasis"),
    ("haemangioma", "benign vascular lesion", "embolisation", "feeding vessel", "sclerotherapy", "cavernous spaces",
     "thrombin", "flow voids", "involution", "phleboliths"),
    ("infarction", "ischaemic necrosis", "occlusion", "anticoagulation", "thrombus", "wedge-shaped defect",
     "embolic source", "reperfusion", "collaterals", "atheroma"),
    ("teratoma", "germ cell tumour", "alpha-fetoprotein", "hair and sebum", "mature elements", "teeth", "ectoderm",
     "cystectomy specimen", "beta-hCG", "cartilage"),
    ("aspergillosis", "mould infection", "septate hyphae", "galactomannan", "fungal culture", "halo sign",
     "itraconazole", "neutropenia", "silver stain", "conidia"),
    ("echinococcosis", "hydatid disease", "daughter cysts", "hydatid serology", "sheep contact", "scolices",
     "water lily sign", "pericystectomy", "hooklets", "eosinophilia"),
    ("haematoma", "blood collection", "trauma", "evacuation", "fall from height", "coagulation screen",
     "extravasation", "haemostasis", "clot", "anticoagulant reversal"),
    ("fibrosis", "scarring disease", "collagen bands", "myofibroblasts", "IgG4 plasma cells", "stenosis",
     "retroperitoneum", "elastography", "honeycombing", "contracture"),
)  # fmt: skip
DRUGS = (
    "rituximab", "prednisolone", "amphotericin", "albendazole", "ceftriaxone", "isoniazid", "propranolol",
    "methotrexate", "tacrolimus", "cyclophosphamide", "voriconazole", "heparin", "imatinib", "octreotide",
    "colchicine", "infliximab", "doxorubicin", "vancomycin", "levothyroxine", "mycophenolate", "warfarin",
    "azathioprine", "pazopanib", "meropenem",
)  # fmt: skip
PICTURES = (
    "a hypodense lesion", "rim enhancement", "diffuse thickening", "multiple nodules", "a cystic mass",
    "coarse calcifications", "restricted diffusion", "a filling defect", "ground-glass opacities", "patchy uptake",
    "an exophytic mass", "wall oedema", "aneurysmal dilatation", "a fluid level", "miliary lesions",
    "a stellate scar",
)  # fmt: skip
PAST = (
    "hypertension", "type 2 diabetes", "asthma", "hypothyroidism", "atrial fibrillation", "depression", "gout",
    "migraine", "a cholecystectomy", "an appendectomy", "smoking", "alcohol use", "chronic kidney disease",
    "osteoporosis",
)  # fmt: skip
LABS = (
    "haemoglobin", "leukocytes", "platelets", "creatinine", "alanine aminotransferase", "bilirubin",
    "C-reactive protein", "lactate dehydrogenase", "sodium", "potassium", "calcium", "ferritin",
)  # fmt: skip
TESTS = (
    "Ultrasound", "Computed tomography", "Magnetic resonance imaging", "A radiograph", "Endoscopy",
    "Positron emission tomography",
)  # fmt: skip
VARIANTS = 4  # of each disease
TIMES = ("days", "weeks", "months")
COURSE = (
    "The recovery was uneventful.", "Symptoms resolved within {n} weeks.",
    "At {n} months of follow-up there was no relapse.", "The patient was discharged on day {n}.",
    "A relapse after {n} months was treated again.", "Follow-up of {n} months was unremarkable.",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Disease:
    """A process in an organ. `names`: two ways to say it; `signs` numbers into `SIGNS`; `organ` and `process`: words
    that it shares with other diseases of the one or the other; `drugs` that go with it; `variants`: codes of its
    kinds."""

    names: tuple[str, str]
    signs: tuple[int, ...]
    organ: tuple[str, ...]
    process: tuple[str, ...]
    drugs: tuple[str, ...]
    variants: tuple[str, ...]


def diseases(count: int, rng: random.Random) -> list[Disease]:
    """`count` diseases, at most one for every organ and process."""
    pairs = rng.sample([(o, p) for o in ORGANS for p in PROCESSES], count)
    return [
        Disease(
            (f"{organ[0]} {process[0]}", f"{process[1]} of the {organ[1]}"), tuple(rng.sample(range(len(SIGNS)), 6)),
            organ[2:], process[2:], tuple(rng.sample(DRUGS, 2)), tuple(_code(rng) for _ in range(VARIANTS)),
        )
        for organ, process in pairs
    ]  # fmt: skip


def _code(rng: random.Random) -> str:
    """A made-up protein variant, as p.R132H: rare and exact, which words find."""
    letters = "ACDEFGHIKLMNPQRSTVWY"
    return f"p.{rng.choice(letters)}{rng.randint(20, 1500)}{rng.choice(letters)}"


def narrative(disease: Disease, variant: int, opening: str, pronoun: str, rng: random.Random) -> list[str]:
    """Two or three paragraphs on a patient: `opening` is the sentence's start that names age and gender ("A 45-year-old
    man"), `pronoun` "He" or "She". Three of the disease's six signs and two of others, each in the writer's words;
    half of the words of its organ and its process and one of another; its name in six, its variant in eight of ten."""
    said = [rng.choice(SIGNS[i]) for i in (*rng.sample(disease.signs, 3), *rng.sample(range(len(SIGNS)), 2))]
    organ, process = rng.sample(disease.organ, 4), rng.sample(disease.process, 4)
    stray = rng.choice(rng.choice((*ORGANS, *PROCESSES))[2:])
    drug = rng.choice(disease.drugs if rng.random() < 0.6 else DRUGS)
    named = f"The diagnosis of {rng.choice(disease.names)} was made and" if rng.random() < 0.6 else "After discussion,"
    gene = f" Sequencing showed {disease.variants[variant]}." if rng.random() < 0.8 else ""
    parts = [
        _beginning(opening, pronoun, said, rng),
        f"{_tests(organ[0], rng)} We noted {organ[1]} and {process[0]}; {stray} was normal.{gene}",
        f"Further work-up with {process[1]}, {organ[2]} and {process[2]} was done. {named} {drug} was given because of "
        f"{organ[3]} and {process[3]}. {rng.choice(COURSE).format(n=rng.randint(2, 18))}",
    ]
    return parts if rng.random() < 0.5 else [parts[0], f"{parts[1]} {parts[2]}"]


def _beginning(opening: str, pronoun: str, said: list[str], rng: random.Random) -> str:
    verb = rng.choice(("presented with", "was admitted with", "was referred for", "came to our department because of"))
    past = rng.sample(PAST, 2)
    begun = f"{rng.randint(2, 20)} {rng.choice(TIMES)}"
    return (
        f"{opening} {verb} {said[0]}, {said[3]} and {said[1]} for {begun}. {pronoun} also had {said[2]} and {said[4]}. "
        f"The history was notable for {past[0]} and {past[1]}."
    )


def _tests(place: str, rng: random.Random) -> str:
    labs = [f"{name} {rng.uniform(0.5, 300):.1f}" for name in rng.sample(LABS, 3)]
    one, other = rng.sample(TESTS, 2)
    seen = f"{one} showed {rng.choice(PICTURES)} near the {place}, and {other.lower()} {rng.choice(PICTURES)}."
    return f"Laboratory tests showed {labs[0]}, {labs[1]} and {labs[2]}. {seen}"
