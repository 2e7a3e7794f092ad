# The ways in which a connection ends: in stages, by a reset, at once.  HTTP connections
# and upgraded streams end by the same code, on the server and on the client.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TypeAlias, cast

import trio

from .._util import split_errors
from .socket_stream import DirectSocketStream
from .underlying import reset_on_close
from .upgraded import UpgradedStream, find_underlying

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
    if isinstance(stream, UpgradedStream):
        stream = stream.outermost
    errors, _ = split_errors(exc)
    if errors is not None:
        reset_on_close(stream)
    await close_forcefully(stream)


async def close_forcefully(stream: trio.abc.AsyncResource) -> None:
    """Close without waiting for anything, as :func:`trio.aclose_forcefully` does.

    That one raises Cancelled where its caller is cancelled already, and so would put it
    in the place of the exception that is being dealt with. The shield cannot delay
    anything, since what it shields is cancelled.
    """
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()


async def close_gracefully(stream: trio.abc.Stream, seconds: float | None) -> None:
    """Close politely, but abruptly after so many seconds; None waits for ever.

    TLS says its end (RFC 9112 §9.8), which a stream that is https_compatible does not do
    when it is merely closed.
    """
    if _find_tls(stream) is not None:
        await close_in_stages(stream, seconds)
        return
    with trio.move_on_after(math.inf if seconds is None else seconds):
        await stream.aclose()


def close_nowait(stream: trio.abc.Stream) -> bool:
    """Close it if that has nothing to wait for, and needs no bound; return if it did.

    So it is with a plain socket whose peer has ended its side: nothing can be unread.
    """
    below = find_underlying(stream, to_receive=True)
    if not (
        isinstance(below, DirectSocketStream)
        and isinstance(stream, UpgradedStream)
        and stream.peer_ended
    ):
        return False
    below.close()
    return True


async def close_in_stages(stream: trio.abc.Stream, linger: float | None) -> None:
    """End our direction, read until the peer ends its own, close (RFC 9112 §9.6).

    A socket closed with unread input sends a reset, which may destroy our last bytes
    on their way. Over TLS the close_notify is our end, and the reading is done below it.
    Where one direction cannot be ended alone at all, this only closes.

    Args:
        stream: It is closed on return, also after an error or a cancellation.
        linger: Seconds for all of it, None for as long as it takes.
    """
    layers = _find_layers(stream)
    try:
        with trio.move_on_after(math.inf if linger is None else linger):
            top = layers[0]
            # A TLS peer that has said its end still waits for ours.
            if layers[1:] or not (isinstance(top, UpgradedStream) and top.peer_ended):
                await _exchange_ends(layers)
            while layers:
                await layers[0].aclose()
                del layers[0]
    except (
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        trio.BusyResourceError,
    ):
        pass  # The peer or the app was quicker; there is nothing left to be polite to.
    finally:
        for layer in layers:
            await close_forcefully(layer)


def _find_layers(stream: trio.abc.Stream) -> list[trio.abc.Stream]:
    # What is to be closed, from the top: unwrap() takes what is below away from a TLS
    # stream, so that is closed by itself; it is None if the app has unwrapped it before.
    if isinstance(stream, UpgradedStream):
        stream = stream.outermost
    layers = [stream]
    while (tls := _find_tls(layers[-1])) is not None:
        if cast("object", tls.transport_stream) is None:
            break
        layers.append(tls.transport_stream)
    return layers


def _find_tls(stream: trio.abc.Stream) -> _SSLStream | None:
    while isinstance(stream, UpgradedStream) and not stream.detached:
        stream = stream.transport
    return cast("_SSLStream", stream) if isinstance(stream, trio.SSLStream) else None


async def _exchange_ends(layers: list[trio.abc.Stream]) -> None:
    for layer in layers[:-1]:
        tls = _find_tls(layer)
        assert tls is not None
        # The peer may go on sending, or end without a close_notify: both are a broken
        # TLS to Trio, and neither matters any more.
        with suppress(trio.BrokenResourceError):
            await tls.unwrap()
    bottom = layers[-1]
    if isinstance(bottom, trio.abc.HalfCloseableStream):
        await bottom.send_eof()
        while await bottom.receive_some():
            pass
