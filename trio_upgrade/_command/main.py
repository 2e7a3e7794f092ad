# From a command line to an exit status.
from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from .errors import (
    FAILURE,
    INTERRUPTED,
    NAME,
    PIPE_CLOSED,
    CommandFailed,
    OutputClosed,
    find_leaves,
)
from .masking import hide
from .output import flush_stdout, show_error, start_logging
from .parser import find_run, parse
from .stdio import fill_descriptors
from .values import find_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        words: The command line; None takes that of this process.

    Returns:
        The exit status: 0, also after a drain; 1 after a failure, of which one line on
        standard error says why; 2 for a wrong command line; 130 after Ctrl-C; 141 if no
        process reads standard output any more.

    Raises:
        SystemExit: Help was asked for, or the application of the user raises it.
    """
    name = NAME
    secrets: list[str] = []
    try:
        fill_descriptors()
        arguments = parse(words)
        name = f"{NAME} {arguments.command}"
        secrets = find_secrets([*vars(arguments).values()])
        start_logging(verbose=arguments.verbose)
        status: int = find_run(arguments.command)(arguments)
        return status
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as exc:
        return _report(name, exc, secrets)
    finally:
        flush_stdout()


def _report(name: str, exc: BaseException, secrets: list[str]) -> int:
    leaves = find_leaves(exc)
    for leaf in leaves:
        if isinstance(leaf, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(leaf, OutputClosed):
            return PIPE_CLOSED
    failures = [leaf for leaf in leaves if isinstance(leaf, CommandFailed)]
    if len(failures) < len(leaves):
        # A bug, most likely of the user's application.
        traceback.print_exception(exc)
        return FAILURE
    show_error(name, hide(str(failures[0]), secrets))
    return failures[0].status
