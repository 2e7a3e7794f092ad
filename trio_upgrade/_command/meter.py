# How many bytes a session has moved, for the person at a terminal.
from __future__ import annotations

import sys
import time
from typing import final

import trio

from .. import Progress
from .stdio import STDERR, STDOUT, is_terminal

# Seconds between two lines.
_INTERVAL = 0.5
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


@final
class Meter:
    """The bytes of a session, and how they are shown on standard error.

    Attributes:
        sent: Bytes from standard input to the stream.
        received: Bytes from the stream to standard output.
        is_shown: Whether a line is shown at the end.
        is_live: Whether it is shown all the time. Not if standard output is the terminal
            too: the bytes themselves are seen there.
    """

    def __init__(self, *, is_shown: bool, is_live: bool) -> None:
        self.sent = Progress()
        self.received = Progress()
        self.is_shown: bool = is_shown
        self.is_live: bool = is_live
        self._began = time.monotonic()

    @classmethod
    def for_terminal(cls) -> Meter:
        """Return a meter that shows itself if a person sees it."""
        is_shown = is_terminal(STDERR)
        return cls(is_shown=is_shown, is_live=is_shown and not is_terminal(STDOUT))

    async def run(self) -> None:
        """Show the bytes until cancelled."""
        while True:
            self._show("\r")
            await trio.sleep(_INTERVAL)

    def finish(self) -> None:
        """Show the bytes for the last time, in a line that stays."""
        if self.is_shown:
            self._show("\r" if self.is_live else "")
            sys.stderr.write("\n")

    def _show(self, before: str) -> None:
        seconds = time.monotonic() - self._began
        rate = (self.sent.bytes + self.received.bytes) / max(seconds, 0.001)
        line = (
            f"sent {format_bytes(self.sent.bytes)}, "
            f"received {format_bytes(self.received.bytes)} "
            f"in {seconds:.1f} s, {format_bytes(rate)}/s"
        )
        # Blanks hide the end of a longer line before.
        sys.stderr.write(f"{before}{line:<64}" if self.is_live else line)
        sys.stderr.flush()


def format_bytes(count: float) -> str:
    """Return a number of bytes with the unit that a person reads."""
    for unit in _UNITS[:-1]:
        if count < _STEP:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} {_UNITS[-1]}"
