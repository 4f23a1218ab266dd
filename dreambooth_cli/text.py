"""Text that comes from outside: whether it can be written, and its beginning for a message."""



def is_text(text: str) -> bool:
    """Whether text can be written as UTF-8: bytes of a command line that are none, and halves of a pair in JSON, can't."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def shortened(text: str, most: int = 200) -> str:
    """Text for a message: its beginning, where it is very long."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"
