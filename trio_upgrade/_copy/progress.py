# How far a copy has come: what users see of it, and what the engines note.
from __future__ import annotations

from typing import final

import trio

from .._util import public


@public
@final
class Progress:
    """How many bytes a copy has moved, while it runs and ever after.

    Give it as ``progress=`` and look at it whenever you like; it is also right when the
    copy has failed or was cancelled. It only ever counts up, so it may be given to
    several copies, one after the other or at the same time, and counts them all.

    Attributes:
        left_to_right: Bytes from left to right; from source to sink, where there is
            only one direction. They count as soon as the sink has taken them.
        right_to_left: Bytes in the other direction.
    """

    __slots__ = ("left_to_right", "right_to_left")

    def __init__(self, left_to_right: int = 0, right_to_left: int = 0) -> None:
        self.left_to_right: int = left_to_right
        self.right_to_left: int = right_to_left

    @property
    def bytes(self) -> int:
        """Both directions together."""
        return self.left_to_right + self.right_to_left

    def __repr__(self) -> str:
        return f"<Progress {self.left_to_right} to right, {self.right_to_left} to left>"


class Tally:
    """What is known of one direction while it is copied.

    Attributes:
        bytes: How many were moved.
        read: How many were read by descriptor.
        at_sink: Whether the sink was used last, and not the source.
        moved_at: When a byte came or went last, on Trio's clock; None until somebody who
            wants to know has set it.
    """

    __slots__ = (
        "_backward",
        "_progress",
        "at_sink",
        "bytes",
        "moved_at",
        "read",
    )

    def __init__(self, progress: Progress | None, *, backward: bool = False) -> None:
        self._progress = progress
        self._backward = backward
        self.bytes: int = 0
        self.read: int = 0
        self.at_sink: bool = False
        self.moved_at: float | None = None

    def add(self, count: int) -> None:
        """Count bytes that have gone; 0 says that some have come."""
        self.bytes += count
        if self.moved_at is not None:
            self.moved_at = trio.current_time()
        if self._progress is not None:
            if self._backward:
                self._progress.right_to_left += count
            else:
                self._progress.left_to_right += count
