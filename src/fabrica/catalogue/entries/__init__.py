"""One file an entry: `ENTRY`, and the function that its `reader` names."""
