"""A base model on disk: what it is, read from its own files. No torch."""
