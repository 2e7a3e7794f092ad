# How a WebSocket is dialled.  open_upgrade() dials, and checks the switch by the rules of
# HTTP; the protocol of websockets makes the fields of the offer, and checks those of the
# 101 (RFC 6455 §4.1).
from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast, final

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.http11 import Request as Handshake, Response as HandshakeResponse
from websockets.uri import WebSocketURI

from .. import IllegalSwitch, open_upgrade
from .arguments import (
    check_bounds,
    check_compression,
    check_headers,
    check_origin,
    check_subprotocols,
    check_timing,
)
from .connections import AddressedClientConnection
from .logger import LOGGER, QuietLogger
from .transport import WebSocketTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio

    from .. import DialOptions, HeadersLike, ResponseHead, UpgradedConnection
    from .arguments import Bounds, Timing

_NAME = "websocket"
# open_upgrade() makes these fields of the URL: the protocol knows no Unix sockets and no
# zones of addresses, so it gets a URL that is not used.
_PROTOCOL_FIELDS = frozenset({"connection", "host", "upgrade"})
_UNUSED_URI = WebSocketURI(secure=False, host="localhost", port=80, path="/", query="")


@final
class WebSocketDialler:
    """Everything that was said about the WebSockets to one URL, checked.

    The arguments are those of :func:`open_websocket`.

    Raises:
        TypeError: An argument has another type.
        ValueError: An argument has no such value.
    """

    __slots__ = (
        "_deflate",
        "_headers",
        "_max_size",
        "_options",
        "_origin",
        "_subprotocols",
        "_timing",
        "_url",
        "shown_url",
    )

    def __init__(
        self,
        url: str,
        *,
        origin: str | None,
        subprotocols: Sequence[str] | None,
        compression: str | None,
        max_size: Bounds,
        timing: Timing,
        headers: HeadersLike,
        options: DialOptions,
    ) -> None:
        if not isinstance(cast("object", url), str):
            raise TypeError(f"a URL must be a str, not {type(url).__name__}")
        self._url = url
        self._origin = check_origin(origin)
        self._subprotocols = check_subprotocols(subprotocols)
        self._deflate = check_compression(compression)
        self._max_size = check_bounds("max_size", max_size)
        self._timing = check_timing(timing)
        self._headers = check_headers(headers)
        self._options = options
        # For messages: without userinfo and query, as the messages of the core have it.
        self.shown_url: str = re.sub(r"(?s)//[^/?#]*@", "//***@", url.partition("?")[0])

    async def dial(self) -> Opening:
        """Dial, and return the connection after its 101.

        Raises:
            IllegalSwitch: The 101 is none of WebSocket, or not to this offer.
            OpenError: As :func:`open_upgrade` raises it; nothing is left open.
            OSError: The server, or the first proxy, cannot be reached.
        """
        protocol = ClientProtocol(
            _UNUSED_URI,
            origin=self._origin,
            extensions=enable_client_permessage_deflate(None)
            if self._deflate
            else None,
            subprotocols=self._subprotocols,
            max_size=self._max_size,
            logger=QuietLogger(LOGGER),
        )
        offer = protocol.connect()
        fields = [
            (name, value)
            for name, value in offer.headers.raw_items()
            if name.lower() not in _PROTOCOL_FIELDS
        ]
        del offer.headers["Host"]
        handshake = Handshake(_find_target(self._url), offer.headers)
        connection = await open_upgrade(
            self._url, _NAME, headers=[*fields, *self._headers], **self._options
        )
        try:
            response = self._tell(protocol, connection.response)
        except IllegalSwitch as exc:
            await connection.__aexit__(type(exc), exc, None)
            raise
        return Opening(connection, protocol, handshake, response, self._timing)

    def _tell(self, protocol: ClientProtocol, head: ResponseHead) -> HandshakeResponse:
        # Its parser wants bytes, although this head was parsed once.
        lines = [b"HTTP/1.1 %d %s" % (head.status, head.reason.encode("latin-1"))]
        lines += [b"%s: %s" % pair for pair in head.headers.raw]
        protocol.receive_data(b"\r\n".join([*lines, b"", b""]))
        if protocol.handshake_exc is not None:
            cause = protocol.handshake_exc.__cause__ or protocol.handshake_exc
            exc = IllegalSwitch(str(cause))
            exc.args = (f"{self.shown_url}, reading the answer: {exc}",)
            raise exc from protocol.handshake_exc
        (response,) = protocol.events_received()
        assert isinstance(response, HandshakeResponse)
        return response


@final
class Opening:
    """A connection after its 101, of which a WebSocket can be made.

    Attributes:
        connection: The connection; the owner of this object has to close it.
    """

    __slots__ = ("_handshake", "_protocol", "_response", "_timing", "connection")

    def __init__(
        self,
        connection: UpgradedConnection,
        protocol: ClientProtocol,
        handshake: Handshake,
        response: HandshakeResponse,
        timing: Timing,
    ) -> None:
        self.connection: UpgradedConnection = connection
        self._protocol = protocol
        self._handshake = handshake
        self._response = response
        self._timing = timing

    def make(self, nursery: trio.Nursery) -> AddressedClientConnection:
        """Make the WebSocket, whose tasks run in the nursery."""
        timing, protocol = self._timing, self._protocol
        stream = self.connection.stream
        websocket = AddressedClientConnection(
            nursery,
            WebSocketTransport(stream, protocol, timing["close_timeout"]),
            protocol,
            **timing,
        )
        websocket.request, websocket.response = self._handshake, self._response
        return websocket


def _find_target(url: str) -> str:
    found = re.search(r"(?s)://[^/?#]*([^#]*)", url)
    target = "" if found is None else found[1]
    return target if target.startswith("/") else f"/{target}"
