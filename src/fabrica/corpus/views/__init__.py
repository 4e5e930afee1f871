"""The corpus for other tools: WebDataset, Hugging Face `datasets`, Croissant. Each can be read back without loss."""
