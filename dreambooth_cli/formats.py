"""The formats that a model is exported in, by name."""

from typing import Literal

Format = Literal["single-file", "lora", "kohya", "merged", "diffusers"]
