# When to log something that can happen many times a second.
from __future__ import annotations

import math
from typing import final

import trio

# Seconds without the event, after which an episode is over.
_SECONDS = 10


@final
class Episode:
    """Events of one kind that follow each other closely; only the first is logged."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = -math.inf

    def begins(self) -> bool:
        """Note an event; return whether it is the first of an episode."""
        now = trio.current_time()
        last, self._last = self._last, now
        return now - last > _SECONDS
