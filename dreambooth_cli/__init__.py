"""DreamBooth from the terminal: teach a text-to-image model your dog, mug, toy or face.

For Python: `from dreambooth_cli import train, generate, plan` (see `api`, which is loaded when one of them is asked for).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import generate, plan, train

__version__ = "0.2.0"
__all__ = ["__version__", "generate", "plan", "train"]


def __getattr__(name: str) -> Any:
    """Load `api` on first use: `import dreambooth_cli` itself costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api

    return getattr(api, name)
