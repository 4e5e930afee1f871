"""Clinical language: what a text says of a patient, found by rules that can be read."""
