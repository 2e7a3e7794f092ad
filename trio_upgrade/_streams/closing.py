# How a connection ends: in stages, by a reset, or forcefully.  HTTP connections and
# upgraded streams share this code, on the server and on the client.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import trio

from .._util import split_errors
from .resetting import reset_on_close
from .socket_stream import DirectSocketStream
from .tls import TLSStream
from .upgraded import UpgradedStream, drop_head, find_underlying

if TYPE_CHECKING:
    from .underlying import AnyTLSStream


async def end_stream(
    stream: trio.abc.Stream, exc: BaseException | None, linger: float | None
) -> None:
    """End a stream according to how its scope was left.

    After a normal return: in stages. After an error, even one that is in a group with a
    cancellation: by a reset, so that the peer cannot mistake the cut for an end of
    stream. After a cancellation alone: forcefully.

    Args:
        stream: Closed on return, also after an error or a cancellation of this call.
        exc: The exception that left the scope; None after a normal return.
        linger: Seconds for all the stages; None disables the limit.
    """
    if exc is None:
        with move_on_after(linger):
            await close_in_stages(stream)
        return
    if isinstance(stream, UpgradedStream):
        stream = stream.outermost
    errors, _ = split_errors(exc)
    if errors is not None:
        reset_on_close(stream)
    await close_forcefully(stream)


async def close_forcefully(stream: trio.abc.AsyncResource) -> None:
    """Close without waiting, as :func:`trio.aclose_forcefully` does.

    Trio's function raises Cancelled if its caller is already cancelled, and so would
    replace the exception that the caller is handling. The shield delays nothing, because
    the shielded scope is itself cancelled.

    A kernel socket of ours, also below TLS of ours, is closed without all that, and
    without a checkpoint: an exception to raise and to catch for each of 10,000
    connections takes a second.
    """
    below = drop_head(stream)
    if isinstance(below, DirectSocketStream) or (
        isinstance(below, TLSStream) and below.is_direct
    ):
        below.close()
        return
    with trio.CancelScope(shield=True) as scope:
        scope.cancel()
        await stream.aclose()


async def close_gracefully(stream: trio.abc.Stream, seconds: float | None) -> None:
    """Close gracefully, forcefully after ``seconds``; None disables the limit.

    A TLS stream sends its close_notify (RFC 9112 §9.8). The ``aclose()`` of an
    https_compatible one does not.
    """
    with move_on_after(seconds):
        if _find_tls(stream) is not None:
            await close_in_stages(stream)
        else:
            await stream.aclose()


def close_nowait(stream: trio.abc.Stream) -> bool:
    """Close a stream if no wait is needed for that; return whether it was closed.

    No wait is needed for a plain socket whose peer has ended its direction: no input can
    be unread, so the close cannot send a reset.
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


def move_on_after(seconds: float | None) -> trio.CancelScope:
    """Return a scope that is cancelled after ``seconds``; None disables the limit."""
    return trio.move_on_after(math.inf if seconds is None else seconds)


async def close_in_stages(stream: trio.abc.Stream) -> None:
    """End our direction, read until the peer ends its own, close (RFC 9112 §9.6).

    A socket that is closed with unread input sends a reset, which may destroy our last
    bytes in transit. Over TLS the close_notify goes before the end of the stream below
    (RFC 9112 §9.8). A stream that cannot be half-closed is only closed. TLS that is
    broken, or whose handshake is not over, is ended below TLS only: its peer may still
    have to receive our alert.

    The peer may never end its direction, so a scope of the caller has to bound the time;
    the cancellation closes the stream forcefully.

    Args:
        stream: Closed on return, also after an error or a cancellation.
    """
    layers = _find_layers(stream)
    # unwrap() detaches Trio's TLS from the stream below, which is closed separately.
    closing = [
        layer
        for index, layer in enumerate(layers)
        if index == 0 or isinstance(_find_tls(layers[index - 1]), trio.SSLStream)
    ]
    try:
        top = layers[0]
        # A TLS peer that has sent its close_notify still waits for ours.
        if layers[1:] or not (isinstance(top, UpgradedStream) and top.peer_ended):
            await _exchange_ends(layers)
        while closing:
            await closing[0].aclose()
            del closing[0]
    except (
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        trio.BusyResourceError,
    ):
        pass  # The peer or the app has ended the stream first; only the close is left.
    finally:
        for layer in closing:
            await close_forcefully(layer)


def _find_layers(stream: trio.abc.Stream) -> list[trio.abc.Stream]:
    # The streams to end, outermost first: each with TLS, and the one below all TLS.
    if isinstance(stream, UpgradedStream):
        stream = stream.outermost
    layers = [stream]
    while (tls := _find_tls(layers[-1])) is not None:
        if cast("object", tls.transport_stream) is None:
            # The app has unwrapped it.
            break
        layers.append(tls.transport_stream)
    return layers


def _find_tls(stream: trio.abc.Stream) -> AnyTLSStream | None:
    # Not below a stream of the user's: the end has to go through that.
    while isinstance(stream, UpgradedStream) and not stream.detached:
        stream = stream.transport
    if isinstance(stream, TLSStream | trio.SSLStream):
        return cast("AnyTLSStream", stream)
    return None


async def _exchange_ends(layers: list[trio.abc.Stream]) -> None:
    # The stream to read the peer's end from: the outermost that the peer can still end.
    reader = bottom = layers[-1]
    for layer in layers[:-1]:
        tls = _find_tls(layer)
        assert tls is not None
        # The peer goes on sending, or ended without a close_notify: neither matters any
        # more.
        with suppress(trio.BrokenResourceError):
            if not isinstance(tls, TLSStream):
                reader = bottom
                await tls.unwrap()
            elif tls.is_intact:
                await tls.send_eof()
                if reader is bottom:
                    reader = tls
    if isinstance(bottom, trio.abc.HalfCloseableStream):
        await bottom.send_eof()
    elif reader is bottom:
        return
    while await reader.receive_some():
        pass
