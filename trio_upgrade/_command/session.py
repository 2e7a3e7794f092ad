# A stream joined to standard input and output, until the peer has ended.
from __future__ import annotations

from contextlib import suppress

import trio

from .. import pipe
from .errors import CommandFailed
from .meter import Meter
from .stdio import STDIN, STDOUT, Input, Output, is_terminal

# Seconds without a byte after which standard input is given up when the peer has ended;
# the default of relay(), too.
_SILENCE = 60.0


async def run_session(
    stream: trio.abc.Stream,
    *,
    keep_open: bool = False,
    meter: Meter | None = None,
    stdin: int = STDIN,
    stdout: int = STDOUT,
) -> None:
    """Copy between a stream and standard input and output, until the peer has ended.

    The end of standard input is passed on as a half-close. When the peer has ended,
    standard output is closed; standard input is read on for a peer that still listens, as
    long as bytes move, but not from a terminal, whose user would wait for nothing.

    Args:
        stream: The stream; its owner closes it.
        keep_open: Whether the end of standard input is not passed on, for proxies that
            close both directions then.
        meter: Counts the bytes; None counts nothing.
        stdin: The descriptor of standard input.
        stdout: The descriptor of standard output.

    Raises:
        CommandFailed: The connection broke.
        OutputClosed: No process reads standard output.
    """
    meter = meter or Meter(is_shown=False, is_live=False)
    is_over = trio.Event()
    async with Input(stdin) as source, Output(stdout) as sink:

        async def send() -> None:
            # Broken: bytes that the peer has sent before may still be read.
            with suppress(trio.BrokenResourceError):
                await pipe(
                    source,
                    stream,
                    end=not keep_open,
                    tls_ends=True,
                    progress=meter.sent,
                )
            is_over.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            if meter.is_live:
                nursery.start_soon(meter.run)
            try:
                await pipe(stream, sink, progress=meter.received)
            except trio.BrokenResourceError as exc:
                raise CommandFailed("the connection was reset") from exc
            if not is_terminal(stdin):
                await _wait_silence(is_over, meter)
            nursery.cancel_scope.cancel()


async def _wait_silence(is_over: trio.Event, meter: Meter) -> None:
    before = -1
    while not is_over.is_set() and meter.sent.bytes > before:
        before = meter.sent.bytes
        with trio.move_on_after(_SILENCE):
            await is_over.wait()
