# Connections of a server whose load balancers speak the PROXY protocol.  A class of its
# own, so that servers without it have nothing more to do for a connection.
#
# The header is read from the kernel socket itself, below TLS, and without a byte of what
# follows it: recv(2) with MSG_PEEK shows the bytes, and those that belong to the header
# are then received.  Bytes of an incomplete header are received as well before the wait
# for more: the socket would stay readable, and the wait would return at once.
from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from .._errors import MalformedMessage
from .._streams.closing import close_forcefully
from .._streams.proxy_protocol import MOST_BYTES, parse_proxy_header
from .._streams.underlying import (
    find_peer,
    find_proxied,
    find_underlying_socket,
    set_proxied,
)
from .connection import Connection
from .end_reason import EndReason
from .observers import LOGGER

if TYPE_CHECKING:
    from .._streams.proxy_protocol import ProxyHeader
    from .connection import Switched


class ProxiedConnection(Connection):
    """A connection that begins with a PROXY protocol header if its peer is trusted."""

    __slots__ = ()

    async def _speak_http(self) -> Switched | None:
        trusted = self._state.proxy_protocol
        assert trusted is not None
        # One that joined by serve_stream(server=...) may be on a socket whose header was
        # read before, for example in a tunnel.
        if find_proxied(self._stream) is None and trusted.trusts(self._stream):
            await self._receive_proxy_header()
            if self.reason is not None:
                # At once and without an answer: nothing was sent, and the peer does not
                # speak what was agreed on.
                await close_forcefully(self._stream)
                return None
        return await super()._speak_http()

    async def _receive_proxy_header(self) -> None:
        # Sets the reason if none came.  Until then the connection counts as idle, also
        # for a drain, as one does that has sent no request so far.
        deadlines, outer = self._state.deadlines, self.scope
        sock = find_underlying_socket(self._stream)
        assert sock is not None
        header = None
        try:
            with trio.CancelScope() as self.scope:
                self.idle = True
                deadlines.header.arm(self)
                if self._state.draining.is_set():
                    deadlines.last.arm(self)
                header = await _receive_header(sock)
                self.reason = EndReason.PEER if header is None else None
        except MalformedMessage as exc:
            self.reason = EndReason.MALFORMED
            self._note_cause(exc)
            LOGGER.debug("refused %a: %s", find_peer(self._stream), exc)
            return
        except OSError as exc:
            self.reason = EndReason.LOST
            self._note_cause(exc)
        finally:
            # Not idle any more, so that no drain arms a deadline which would cancel the
            # scope of all connections.
            self.idle, self.scope = False, outer
            deadlines.disarm(self)
        self.reason = self.expired or self.reason
        if self.reason is not None:
            self._log_end(self.reason)
            return
        assert header is not None
        set_proxied(self._stream, header)
        if self.records is not None:
            self.records.peer = find_peer(self._stream)


async def _receive_header(sock: trio.socket.SocketType) -> ProxyHeader | None:
    # Returns None if the peer ends the connection without a byte, as simple checks of
    # our health do.
    received = b""
    while True:
        shown = await sock.recv(MOST_BYTES, socket.MSG_PEEK)
        if not shown:
            if not received:
                return None
            raise MalformedMessage("the connection ended in a PROXY protocol header")
        header = parse_proxy_header(received + shown)
        more = len(shown) if header is None else header.length - len(received)
        received += await sock.recv(more)
        if header is not None:
            return header
