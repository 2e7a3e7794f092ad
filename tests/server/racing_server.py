# A server that starts on a Unix socket when it is told, and again and again.  A program,
# run twice by test_serve_unix.py.
#
# Argument: the path.  Each round has two lines of input: the time to start at, then a
# line to stop.  After the first it prints whether it listens, after the second a line.
from __future__ import annotations

import errno
import sys
import time

import trio

from trio_upgrade._streams.unix_listener import UnixListener, open_unix_listener


def report(text: str) -> None:
    """Write a line for the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main() -> None:
    for line in sys.stdin:
        listener: UnixListener | None = None
        while time.monotonic() < float(line):
            pass
        try:
            listener = await open_unix_listener(sys.argv[1], mode=0o600, backlog=None)
            report("listening")
        except OSError as exc:
            report(errno.errorcode[exc.errno or 0])
        sys.stdin.readline()
        if listener is not None:
            await listener.aclose()
        report("stopped")


if __name__ == "__main__":
    trio.run(main)
