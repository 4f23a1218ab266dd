"""The base model that comes in the box: its drawn world, its recipe, its weights."""
