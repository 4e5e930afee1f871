"""De-identification: DICOM (PS3.15 Annex E), burned-in text, reports, tables, signals, file names; and its audit."""
