"""Near-duplicates and leaks: fingerprints, search among many, what to drop or keep on one side of a split."""
