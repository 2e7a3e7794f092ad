"""The program ``python -m trio_upgrade``, also installed as ``trio-upgrade``."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

# As a shell reports it.
_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run the program as the last thing that a process does; return its exit status.

    Args:
        words: The command line; None takes that of this process.

    Raises:
        SystemExit: Help was asked for, or the application of the user raises it.
    """
    try:
        # Not at the top: these imports take most of the time in which Ctrl-C would
        # show a traceback.
        from ._command.main import main as run

        status = run(words)
    except KeyboardInterrupt:
        status = _INTERRUPTED
    # A second SIGTERM that comes when all has drained already must not make another
    # status of it.  Not ignored, since a thread of the user may let the process wait.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_leave, status))
    return status


def _leave(
    status: int, *_: object
) -> NoReturn:  # pragma: no cover  (and so would be the whole test)
    os._exit(status)


if __name__ == "__main__":  # pragma: no cover  (tests import it, or run it outside)
    sys.exit(main())
