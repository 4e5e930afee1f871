"""Services over a corpus and models: an OpenAI-compatible API with search that shows its evidence."""
