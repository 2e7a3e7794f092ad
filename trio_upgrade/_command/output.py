# What the program says: one line with the URL on standard output, all else on standard
# error.
from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

from .masking import escape, mask_userinfo
from .stdio import STDOUT


def announce(url: str) -> None:
    """Print where the program listens: the URL alone, so that scripts can use it."""
    # A program that started this one may have read enough, and closed the pipe.
    with suppress(OSError):
        print(url, flush=True)  # noqa: T201


def show_error(name: str, message: str) -> None:
    """Print the reason of a failure in one line, without secrets."""
    line = " ".join(message.split())
    sys.stderr.write(f"{name}: {escape(mask_userinfo(line))}\n")


def start_logging(*, verbose: bool) -> None:
    """Let the loggers write to standard error."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )


def flush_stdout() -> None:
    """Write out what is left, or drop it if nobody reads.

    Otherwise the interpreter would try it at its end, and complain there.
    """
    try:
        sys.stdout.flush()
    except (AttributeError, ValueError):
        pass  # It was closed by the parent, or by the program.
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDOUT)
        os.close(null)
