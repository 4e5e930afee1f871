"""What may stay in DICOM text: attributes kept as they are, and the closed list of words that descriptions keep."""

from __future__ import annotations

import functools
import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Text attributes outside Table E.1-1 that say how an image was made, not of whom. All others keep listed words only.
VERBATIM = _set(
    """
    Manufacturer ManufacturerModelName SoftwareVersions SequenceName PulseSequenceName ConvolutionKernel CodeValue
    CodingSchemeDesignator CodingSchemeVersion RescaleType ImagedNucleus FilterType ReceiveCoilName
    TransmitCoilName AcquisitionDeviceProcessingCode WindowCenterWidthExplanation AlgorithmName AlgorithmVersion
    SegmentAlgorithmName ImplementationVersionName LUTExplanation ModalityLUTType Radionuclide
    MIMETypeOfEncapsulatedDocument ApplicationName ApplicationVersion ContrastBolusRoute
    PatientSupportAccessoryCode VideoImageFormatAcquired
    """
)
# Binary attributes that stay: pixels, waveforms, look-up tables, colour. Others (OB, OW, UN ...) go.
BINARY = _set(
    """
    PixelData FloatPixelData DoubleFloatPixelData WaveformData RedPaletteColorLookupTableData
    GreenPaletteColorLookupTableData BluePaletteColorLookupTableData AlphaPaletteColorLookupTableData
    SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
    SegmentedBluePaletteColorLookupTableData SegmentedAlphaPaletteColorLookupTableData LUTData
    PixelDataProviderURL VectorGridData PointCoordinatesData SurfacePoints SpectroscopyData ChannelMinimumValue
    ChannelMaximumValue WaveformPaddingValue ExtendedOffsetTable ExtendedOffsetTableLengths
    LongPrimitivePointIndexList TrianglePointIndexList EdgePointIndexList VertexPointIndexList
    PrimitivePointIndexList SurfacePointsNormals
    """
) - {"PixelDataProviderURL"}
SCHEMES = _set(
    """
    SCT SRT SNM3 99SDM DCM LN FMA UCUM RADLEX NCIt ICD10 I10 I9 C4 MDC NDC UMLS BARI RADELEMENT
    """
)
# What a sequence item of these holds is a person, an organisation or a request: replaced as a whole.
_WORDS = """
    abdomen abdominal acquisition adc adrenal air angio angiography angle ankle anterior aorta aortic ap apical appendix
    arch arm arms arterial artery axial axis axillary average b-mode barium base baseline basal bilateral biliary biopsy
    bladder blade blood bold bolus bone bones bowel brachial brain breast breath breathhold bronchus bulb c-spine calc
    calcaneus calcium calf cardiac carotid cavity cc celiac cerebral cervical cest chest cholangiogram cine circle
    clavicle cm coccyx colon colonography colour color compression contrast coronal coronary cor corrected cranial
    cranium craniocaudal cross cross-table ct cta cube cuff curved cut cyst decubitus deep delayed delay derived detail
    diagnostic diaphragm diastole difference diffusion digital dir disc disk distal dixon dobutamine doppler dorsal dose
    dot double dti dual duct ductal dwi dx dynamic early ear echo ejection elbow elevated endometrium enhanced
    enterography entire epi epididymis epigastric epiphysis erect esophagus ethmoid evaluation excretory exp exam
    expiration expiratory extension extremity extremities eye eyes face facial fallopian fat fatsat fast fast-spin
    femoral femur fetal fetus ffe fiesta field fine finger fingers first fisp flair flank flash flat flex flexion flow
    fluoro fluoroscopy foot forearm fov fraction frame frames frontal fs fse fsp full function functional fundus
    gallbladder gated gd gland glenoid gradient gre grid guided gyn haste half hand hands hd head heart helical hemi
    hepatic hepatobiliary high hilum hindfoot hip hips hi-res hires humerus iac iliac image images imaging in-phase
    inferior infusion inhale initial inner inspiration inspiratory intercostal internal intestine intracranial
    intravenous inversion ir iso isotropic iv joint jugular k-space kidney kidneys knee knees kub kv kvp l-spine large
    laryngeal larynx lat lateral late leg legs lesion level liver lobe localizer loc long lordotic low lower lumbar
    lumen
    lung lungs ma mag magnetic mammo mammogram mammography mandible map mas mask mastoid maxilla maxillary mean
    mediastinum mediolateral medium mesenteric mid middle minip mip ml mlo mm modality mono mono-energetic motion mpr
    mprage mr mra mrcp mri mrv ms multi multiphase muscle myelogram myocardium nasal nasopharynx native navel neck
    neonatal nephrogram nerve no noise non non-contrast noncontrast normal nuchal obl oblique obstetric occipital
    odontoid opaque open oral orbit orbits original os oscillating out out-of-phase ovarian ovary overhead p-a pa
    pancreas
    panoramic paranasal parathyroid parotid patella pd pedal pediatric pelvic pelvis penile perfusion perineum phase
    phantom pharynx pituitary placenta plain plane plantar pleural pneumo popliteal portable portal position post
    post-contrast posterior pre pre-contrast prep pre-op post-op pressure primary projection prone propeller prostate
    protocol proton proximal psif pulmonary pulse pulsed qc quadrant radial radiograph radius ramp rapid ratio real
    recon
    reconstructed reconstruction rectal rectum reference reformat reformatted region renal repeat rest resting
    resolution
    retro retroperitoneal reverse rf rib ribs right left rotation routine runoff sacral sacrum sag sagittal sat
    saturation
    scan scapula scaphoid scout scrotal scrotum second secondary segment segmentation sella semi sequence series
    shoulder
    shoulders short shunt sig signal single sinus sinuses skeletal skull slab slice slices small smooth soft space spair
    spectral spgr spin spinal spine spiral spleen spoiled spot src ssfp ssfse stack standard standing static std stent
    sternum stir stomach straight stress stroke structure study subclavian submandibular subtraction superficial
    superior supine supra surface survey survival sv swallow swi systole systolic t-spine t1 t1-weighted t1w t2 t2*
    t2-weighted t2w tangential target te temporal test testicular testis thick thigh thin third thoracic thorax throat
    thumb thyroid ti tibia tibial time tir tirm tmj toe toes tof tomo tomography tomosynthesis tongue topogram tr trace
    trachea tracking trans transabdominal transcranial transvaginal transverse trauma triphasic trufi tse tube turbo
    two-chamber four-chamber ultrasound umbilical unenhanced upper upright ureter urethra urinary urinary us uterine
    uterus vaginal valve vascular vein veins venous ventral ventricle ventricular vertebra vertebral vibe video view
    views volume volumetric vr wall water weighted whole wide window with without w wo w/o and of the in on at to for or
    wrist wrists x-ray xr xray y-view z-axis zoom zygoma 2d 3d 4d ax sagg tra cor thx abd pel ext bh lava thrive space
    bravo asl swan venbold fgre cisp ciss medic dess mpge rx hr soft-tissue sharp kernel b0 sshtse dwibs mdixon
    """
_NUMBER = re.compile(
    r"\d{1,2}(?:\.\d{1,3})?|\d{1,3}(?:\.\d{1,2})?(?:mm|cm|kv|kvp|ma|mas|ml|s|sec|ms|t|deg|fps|hz|mhz|%)|"
    r"b\d{1,4}|[tlcs]\d{1,2}"
)


@functools.cache
def words() -> frozenset[str]:
    """The words that a cleaned description may keep."""
    return frozenset(_WORDS.split())


def protocol_words(text: str) -> str:
    """A description with its protocol and anatomy words and short measures alone: a closed list, so that no name, date
    or number can pass.

    >>> protocol_words("CT CHEST W/O CONTRAST DOE JOHN 5mm 12.03.1941 MRN 4471932")
    'CT CHEST W/O CONTRAST 5mm'
    """
    kept, numbers = [], 0
    for token in re.split(r"[\s_,;:()\[\]^\\]+", text):
        low = token.strip(".-+*").lower()
        if low in words() or (low and all(p in words() for p in re.split(r"[-/+&]", low))):
            kept.append(token.strip(".-"))
            numbers = 0
        elif _NUMBER.fullmatch(low) and not (low.isdigit() and numbers):
            kept.append(token)
            numbers += low.isdigit()
    return " ".join(kept)
