# How a connection ends: in stages, by a reset, or forcefully.  HTTP connections and
# upgraded streams share this code, on the server and on the client.
#
# end_stream() is the rule for a stream that a scope owns: the connection task of a
# server, the `async with` of a client, stream_scope().  An exception, Cancelled included,
# cuts the stream: a reset, so that the peer cannot take half a transfer for a whole one.
# But once send_eof() has returned the peer knows that it gets all our bytes, and a reset
# could only destroy the last of them.  After a send that was cut, a normal return cannot
# make the transfer whole: that stream is reset, too.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import trio

from .resetting import reset_on_close
from .socket_stream import RECEIVE_SIZE, DirectSocketStream
from .tls import TLSStream
from .underlying import iter_layers
from .upgraded import UpgradedStream, drop_head, find_underlying, is_cut

if TYPE_CHECKING:
    from .underlying import AnyTLSStream

# Streams that tell whether our direction was ended.
_TELLING = (UpgradedStream, DirectSocketStream, TLSStream)
# The peer or another task has been faster.
_LOSSES = (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError)
# Times that input is received and dropped before a close that does not wait, if the peer
# goes on sending.
_MOST_DISCARDED = 8
# Passes of the scheduler for the end of a stream that is not to wait.  One layer of TLS
# takes four; there may be TLS in TLS.
_PASSES = 16


async def end_stream(
    stream: trio.abc.Stream, exc: BaseException | None, linger: float | None
) -> None:
    """End a stream according to how its scope was left.

    After a normal return: in stages, of which a cancelled caller only skips the waiting.
    After an exception, Cancelled included, or a send that was cut: see
    :func:`cut_stream`.

    Args:
        stream: Closed on return, also after an error or a cancellation of this call.
        exc: The exception that left the scope; None after a normal return.
        linger: Seconds for all the stages; None disables the limit.
    """
    if exc is None and not is_cut(stream):
        with move_on_after(linger):
            await close_in_stages(stream, insist=True)
    else:
        await cut_stream(stream)


async def cut_stream(stream: trio.abc.Stream) -> None:
    """Close a stream whose transfer was cut: by a reset, without a wait.

    If our ``send_eof`` had returned, the stream is only closed. TLS sends no
    close_notify. Linux cannot reset a Unix socket, and there may be no socket: then the
    peer gets an end of stream all the same.
    """
    if isinstance(stream, UpgradedStream):
        stream = stream.outermost
    below = drop_head(stream)
    if isinstance(below, DirectSocketStream):
        # The same, in a third of the time: 10,000 streams may be cut at once.
        if not below.eof_sent:
            reset_on_close(below)
        below.close()
        return
    if not _has_sent_eof(stream):
        reset_on_close(stream)
    await close_forcefully(stream)


def _has_sent_eof(stream: trio.abc.Stream) -> bool:
    for layer in iter_layers(stream):
        if isinstance(layer, trio.SocketStream):
            return layer.socket.did_shutdown_SHUT_WR
        if isinstance(layer, _TELLING) and layer.eof_sent:
            return True
    return False


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
        and not below.cut
    ):
        return False
    below.close()
    return True


def move_on_after(seconds: float | None) -> trio.CancelScope:
    """Return a scope that is cancelled after ``seconds``; None disables the limit."""
    return trio.move_on_after(math.inf if seconds is None else seconds)


async def close_without_linger(stream: trio.abc.Stream) -> None:
    """Do what :func:`close_in_stages` does, but only as far as it need not wait.

    No checkpoint for a kernel socket of ours. The caller may be cancelled.
    """
    layers = _find_layers(stream)
    try:
        await _exchange_ends_without_waiting(layers)
    finally:
        for layer in layers:
            await close_forcefully(layer)


async def close_in_stages(stream: trio.abc.Stream, *, insist: bool = False) -> None:
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
        insist: Whether a cancelled call ends our direction all the same, as far as it
            need not wait.
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
    except _LOSSES:
        pass  # The peer or the app has ended the stream first; only the close is left.
    except trio.Cancelled:
        if insist:
            await _exchange_ends_without_waiting(layers)
        raise
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


async def _exchange_ends_without_waiting(layers: list[trio.abc.Stream]) -> None:
    # Input that has arrived is received as well: with it a close would be a reset, which
    # may destroy our last bytes in transit.
    below = find_underlying(layers[0], to_receive=False)
    if isinstance(below, DirectSocketStream):
        with suppress(*_LOSSES):
            below.end()
            for _ in range(_MOST_DISCARDED):
                if not below.receive_some_nowait(RECEIVE_SIZE):
                    break
        return
    # Other streams have no methods that do not wait.  Give them a few passes of the
    # scheduler, which take no time, although the caller may be cancelled.
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        nursery.start_soon(_cancel_soon, nursery.cancel_scope)
        try:
            await _exchange_ends(layers)
        except _LOSSES:
            pass
        except Exception as exc:
            # Kept out of the nursery, which would put it in a group.
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_soon(scope: trio.CancelScope) -> None:
    for _ in range(_PASSES):
        await trio.lowlevel.checkpoint()
    scope.cancel()
