# The arguments of pipe() and relay(), checked before a byte is copied.
from __future__ import annotations

from .._util import name_kind
from .progress import Progress


def check_stream(argument: str, stream: object, *methods: str) -> None:
    """Check that an object has the methods of a stream that a copy needs.

    Not by its class: a wrapper that only passes calls on may work.

    Raises:
        TypeError: It lacks one of them.
    """
    for name in methods:
        if not hasattr(stream, name) or isinstance(stream, type):
            raise TypeError(
                f"{argument} must be a Trio stream with {name}(), "
                f"not {name_kind(stream)}"
            )


def check_progress(progress: object) -> None:
    """Check the counts of a copy.

    Raises:
        TypeError: They are neither a Progress nor None.
    """
    if not isinstance(progress, Progress | None):
        raise TypeError(
            f"progress must be a Progress or None, not {name_kind(progress)}"
        )
