"""What a person sees on a terminal: a program's output, shown on a screen with so many columns."""

import re
import warnings

from rich.cells import cell_len

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it names another package for the same
    from pexpect.ANSI import ANSI

NOT_SHOWN = re.compile("\x1b\\[\\?[0-9]+[hl]|\x1b\\][^\x07]*\x07|\x1b\\[[0-9;]*m|\x1b\\[6n")
ROWS = 400  # more than any program here prints, so that nothing scrolls away


class Screen(ANSI):  # type: ignore[misc] # pexpect has no types for it
    """A screen on which a full line breaks only when something follows it, and wide characters take two columns."""

    def __init__(self, columns: int) -> None:
        super().__init__(ROWS, columns)
        self.full = False

    def write_ch(self, ch: str) -> None:
        """Show one character, or obey a control character."""
        if ch in "\r\n\b\x08":
            self.full = False
            super().write_ch(ch)
            return
        width = cell_len(ch)
        if self.full or self.cur_c + width - 1 > self.cols:
            self.cur_r, self.cur_c, self.full = self.cur_r + 1, 1, False
        self.put_abs(self.cur_r, self.cur_c, ch)
        for column in range(self.cur_c + 1, self.cur_c + width):
            self.w[self.cur_r - 1][column - 1] = ""  # the second half of a wide character
        self.full = self.cur_c + width > self.cols
        self.cur_c = min(self.cols, self.cur_c + width)


def shown(output: str, columns: int) -> str:
    """The lines on a terminal after a program's output."""
    screen = Screen(columns)
    for letter in NOT_SHOWN.sub("", output):
        screen.write(letter)
    return "\n".join("".join(row).rstrip() for row in screen.w).rstrip() + "\n"
