"""The phantom hospital: seeded synthetic patients whose truth is known, and every kind of data drawn from it.

`p1` is the fast two-lung phantom of the proofs; `hospital` draws and writes whole modalities; `xor` and `signals`
give tuples, waveforms and laboratory tables. Everything here is synthetic and says so in its records and files.
"""

from fabrica.phantom.findings import MODALITIES, labels
from fabrica.phantom.p1 import LABELS, P1Batch, p1
from fabrica.phantom.patients import Finding, Knobs, Patient, patients

__all__ = ["LABELS", "MODALITIES", "Finding", "Knobs", "P1Batch", "Patient", "labels", "p1", "patients"]
