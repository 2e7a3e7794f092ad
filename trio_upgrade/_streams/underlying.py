# What is below a stack of streams: its kernel socket, the peer, whether there is TLS.
# UpgradedStream, Trio's own wrappers and those of users name the stream below
# ``transport_stream``, which is followed.  This is for addresses and options only: the
# bytes always go through the wrapper, which may change them.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import trio

from .socket_stream import DirectSocketStream
from .tls import TLSStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .proxy_protocol import ProxyHeader

Peer: TypeAlias = tuple[str, int] | str | None
AnyTLSStream: TypeAlias = "TLSStream | trio.SSLStream[trio.abc.Stream]"

# No stack is as high.  A wrapper may name itself as the stream below, or make a new
# object each time it is asked.
_MOST_LAYERS = 32


def iter_layers(stream: object) -> Iterator[object]:
    """Yield a stream, the stream below it, and so on down; the outermost comes first."""
    for _ in range(_MOST_LAYERS):
        if stream is None:
            # Given away, by the unwrap() of TLS for example.
            return
        yield stream
        stream = _find_next(stream)


def _find_next(stream: object) -> object:
    try:
        return cast("Any", stream).transport_stream
    except Exception:
        # It has none, was detached, or its property fails: no matter for the bytes.
        return None


def _find_bottom(stream: object) -> trio.SocketStream | DirectSocketStream | None:
    for layer in iter_layers(stream):
        if isinstance(layer, trio.SocketStream | DirectSocketStream):
            return layer
    return None


def find_underlying_socket(stream: object) -> trio.socket.SocketType | None:
    """Return the kernel socket below a stack of streams; None if there is none."""
    bottom = _find_bottom(stream)
    if bottom is None or (
        isinstance(bottom, DirectSocketStream) and bottom.fileno() < 0
    ):
        # No Trio socket can be made from a closed socket.
        return None
    return bottom.socket


def find_tls(stream: object) -> AnyTLSStream | None:
    """Return the outermost TLS stream in a stack, ours or Trio's; None if none is."""
    for layer in iter_layers(stream):
        if isinstance(layer, TLSStream | trio.SSLStream):
            return cast("AnyTLSStream", layer)
    return None


def is_secure(stream: object) -> bool:
    """Tell whether there is TLS in a stack of streams."""
    return find_tls(stream) is not None


def set_proxied(stream: object, header: ProxyHeader) -> None:
    """Note the PROXY protocol header that was read from the socket below a stack."""
    # On the stream of the socket, and not in a wrapper around it: that would cost each
    # read.  Trio's SocketStream has room for it in its __dict__.
    cast("Any", _find_bottom(stream)).trio_upgrade_proxied = header


def find_proxied(stream: object) -> ProxyHeader | None:
    """Return the header that :func:`set_proxied` has noted; None if there is none."""
    return getattr(_find_bottom(stream), "trio_upgrade_proxied", None)


def find_peer(transport: trio.abc.Stream) -> Peer:
    """Return the client's address; None if it has none or is gone.

    A PROXY protocol header may have named it; else it is that of the transport.
    """
    header = find_proxied(transport)
    if header is not None and header.names_peer:
        return header.peer
    return find_transport_peer(transport)


def find_transport_peer(transport: trio.abc.Stream) -> Peer:
    """Return the address that the connection comes from; None if it has none or is gone.

    It is that of a load balancer which speaks the PROXY protocol.
    """
    sock = find_underlying_socket(transport)
    return None if sock is None else _read_address(sock.getpeername)


def find_local(transport: trio.abc.Stream) -> Peer:
    """Return the address of our side; None if it has none or is closed."""
    sock = find_underlying_socket(transport)
    return None if sock is None else _read_address(sock.getsockname)


def _read_address(ask: Callable[[], object]) -> Peer:
    try:
        address = ask()
    except OSError:
        # The connection is gone.
        return None
    if isinstance(address, tuple):
        return cast("tuple[str, int]", cast("tuple[object, ...]", address)[:2])
    # The address of a Unix socket: usually empty, on Linux perhaps an abstract name.
    return os.fsdecode(cast("str | bytes", address)) or None
