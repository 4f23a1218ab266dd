"""Base models from the hub."""
