# The ways in which a connection ends: in stages, by a reset, at once.  HTTP connections
# and upgraded streams end by the same code, on the server and on the client.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TypeAlias, cast

import trio

from ._bottom import abort_on_close
from ._groups import split_errors
from ._socket import DirectSocketStream
from ._stream import UpgradedStream

# What isinstance() cannot tell of a generic class.
_SSLStream: TypeAlias = trio.SSLStream[trio.abc.Stream]


async def end_stream(
    stream: trio.abc.Stream, exc: BaseException | None, linger: float | None
) -> None:
    """End a stream the way its scope was left.

    Without an exception in stages; after an error, also one in a group with a
    cancellation, by a reset, so that the peer cannot take the cut for an end; under mere
    cancellation at once. The stream is closed whatever happens, also when this is
    cancelled.
    """
    if exc is None:
        await close_in_stages(stream, linger)
        return
    errors, _ = split_errors(exc)
    if errors is not None:
        abort_on_close(stream)
    await close_now(stream)


async def close_now(stream: trio.abc.AsyncResource) -> None:
    """Close without waiting for anything, as :func:`trio.aclose_forcefully` does.

    That one raises Cancelled where its caller is cancelled already, and so would put it
    in the place of the exception that is being dealt with. The shield cannot delay
    anything, since what it shields is cancelled.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()


async def close_politely(stream: trio.abc.AsyncResource, seconds: float | None) -> None:
    """Close, after saying so where the transport has words for it: over TLS.

    Nothing is waited for on a plain socket.

    Args:
        stream: It is closed on return, also after an error or a cancellation.
        seconds: For the peer's closure alert (RFC 9112 §9.8), None for as long as it
            takes.
    """
    tls = _find_tls(stream)
    if tls is None:
        await stream.aclose()
        return
    transport = tls.transport_stream
    try:
        with trio.move_on_after(math.inf if seconds is None else seconds):
            with suppress(trio.BrokenResourceError, trio.BusyResourceError):
                await tls.unwrap()
    finally:
        await close_now(stream)
        await close_now(transport)


def _find_tls(stream: trio.abc.AsyncResource) -> _SSLStream | None:
    # The TLS that a stream is, if nobody has unwrapped it yet.
    if isinstance(stream, UpgradedStream) and not stream.detached:
        stream = stream.transport
    if not isinstance(stream, trio.SSLStream):
        return None
    tls = cast("_SSLStream", stream)
    return tls if cast("object", tls.transport_stream) is not None else None


def closes_at_once(stream: trio.abc.Stream) -> bool:
    """Tell whether closing has nothing to wait for, and needs no bound.

    So it is with a plain socket whose peer has ended its side: nothing can be unread.
    """
    return (
        isinstance(stream, UpgradedStream)
        and stream.peer_ended
        and not stream.detached
        and isinstance(stream.transport, DirectSocketStream | trio.SocketStream)
    )


async def close_in_stages(stream: trio.abc.Stream, linger: float | None) -> None:
    """End our direction, read until the peer ends its own, close (RFC 9112 §9.6).

    A socket closed with unread input sends a reset, which may destroy our last bytes
    on their way. Over TLS the close_notify is our end, and the reading is done below it.
    Where one direction cannot be ended alone at all, this only closes.

    Args:
        stream: It is closed on return, also after an error or a cancellation.
        linger: Seconds for all of it, None for as long as it takes.
    """
    peer_ended = isinstance(stream, UpgradedStream) and stream.peer_ended
    tls = _find_tls(stream)
    parts = [stream]
    if tls is not None:
        # unwrap() takes it away from the TLS stream, so it is closed by itself.
        parts.append(tls.transport_stream)
    try:
        with trio.move_on_after(math.inf if linger is None else linger):
            if tls is not None:
                # Also behind the peer's own (RFC 9112 §9.8). It may go on sending, or
                # have ended without one: both are a broken TLS to Trio, and neither
                # matters any more.
                with suppress(trio.BrokenResourceError):
                    await tls.unwrap()
            if not peer_ended:
                await _exchange_ends(parts[-1])
            while parts:
                await parts[0].aclose()
                del parts[0]
    except (
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        trio.BusyResourceError,
    ):
        pass  # The peer or the app was quicker; there is nothing left to be polite to.
    finally:
        for part in parts:
            await close_now(part)


async def _exchange_ends(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
        while await stream.receive_some():
            pass
