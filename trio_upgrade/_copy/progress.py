# How far a copy has come: Progress is for users, Tally for the engines.
from __future__ import annotations

from typing import cast, final

import trio

from .._util import name_kind, public


@public
@final
class Progress:
    """How many bytes a copy has moved, while it runs and afterwards.

    Pass it as ``progress=`` and read it at any time; the counts are also right after the
    copy has failed or was cancelled. They only ever grow, so one object can be passed to
    several copies, one after the other or at the same time, and counts them all.

    Attributes:
        left_to_right: Bytes from left to right; from source to sink, if there is only
            one direction. Bytes count as soon as the sink has accepted them.
        right_to_left: Bytes in the other direction.

    Raises:
        TypeError: A count to begin with is not an int.
    """

    __slots__ = ("left_to_right", "right_to_left")

    def __init__(self, left_to_right: int = 0, right_to_left: int = 0) -> None:
        for name, count in (
            ("left_to_right", left_to_right),
            ("right_to_left", right_to_left),
        ):
            if isinstance(count, bool) or not isinstance(cast("object", count), int):
                raise TypeError(f"{name} must be an int, not {name_kind(count)}")
        self.left_to_right: int = left_to_right
        self.right_to_left: int = right_to_left

    @property
    def bytes(self) -> int:
        """Bytes in both directions together."""
        return self.left_to_right + self.right_to_left

    def __repr__(self) -> str:
        return f"<Progress {self.left_to_right} to right, {self.right_to_left} to left>"


class Tally:
    """The counts and times of one direction while it is copied.

    Args:
        progress: The user's counts, kept up to date; None if there are none.
        backward: Whether this direction is from right to left.

    Attributes:
        bytes: The number of bytes moved.
        read: The number of bytes read by descriptor.
        at_sink: Whether the stream used last was the sink, not the source.
        moved_at: The time on Trio's clock when bytes were last read or written. It is
            None, and stays None, until a watcher sets it.
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
        """Count bytes that were written; 0 means that bytes were read."""
        self.bytes += count
        if self.moved_at is not None:
            self.moved_at = trio.current_time()
        if self._progress is not None:
            if self._backward:
                self._progress.right_to_left += count
            else:
                self._progress.left_to_right += count
