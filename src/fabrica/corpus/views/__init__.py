"""The corpus for other tools: WebDataset, Hugging Face `datasets`, Croissant, archives, BEIR. Each can be read back."""
