"""DreamBooth from the terminal: teach a text-to-image model your dog, mug, toy or face."""

__version__ = "0.2.0"
