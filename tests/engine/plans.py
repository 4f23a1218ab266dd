"""Small plans and bases on the CPU for the engine's tests."""

from pathlib import Path
from typing import Any

from dreambooth_cli.bases.base import Base
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.bases.fingerprint import identify
from dreambooth_cli.memory.plan import Plan


def base_of(folder: Path) -> Base:
    """A local base."""
    return Base(name=folder.name, path=folder, repository=None, identity=identify(folder), facts=read_facts(folder))


def plan_for(**changes: Any) -> Plan:
    """A plan for a tiny base on the CPU, with these values changed."""
    values: dict[str, Any] = {
        "method": "full",
        "train_text_encoder": False,
        "precision": "fp32",
        "optimizer": "adamw",
        "gradient_checkpointing": False,
        "resolution": 64,
        "batch_size": 1,
        "learning_rate": 1e-4,
        "text_encoder_learning_rate": 1e-4,
        "alpha": 4.0,
        "class_image_batch": 2,
        "device": "cpu",
        "means": (),
        "ledger": {},
        "needed": 0,
        "free": None,
        "fits": True,
        "why": "",
    }
    return Plan(**(values | changes))
