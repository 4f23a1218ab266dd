"""Text that comes from outside: whether it can be written, and shortened for a message; lists and numbers as people write them."""

def is_text(text: str) -> bool:
    """Whether text can be written as UTF-8, unlike invalid bytes on a command line or lone surrogates in JSON."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def shortened(text: str, most: int = 200) -> str:
    """Text for a message: if it is longer than `most` characters, only its beginning."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def listed(words: list[str]) -> str:
    """Words as people list them: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def plain_number(value: float) -> str:
    """A number as people write it: 7.5, 1000, 0.05, 5e-4, 2.5e-3."""
    if value == 0 or 0.01 <= abs(value) < 1e6:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.5e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"
