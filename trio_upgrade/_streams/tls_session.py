# One TLS session between bytes and bytes: an ssl.SSLObject with its two buffers (BIOs).
# No I/O: this module knows the traps of OpenSSL, and nothing else.
#
# - Session tickets.  In TLS 1.3 a server makes them when its handshake is over, and the
#   client may never read them.  If it closes with unread tickets, its kernel sends a
#   reset, and we lose the data that it had sent.  So they wait for the first bytes that
#   we have to send (BoringSSL does the same).  In TLS 1.2 they are in the last flight of
#   the handshake, which the client waits for.
# - SSLObject.unwrap() calls SSL_shutdown() twice.  The first call makes our close_notify,
#   the second one reads, and breaks the session if it finds data of the peer.  So nothing
#   may be readable during the call.
# - The end of the transport is never told to OpenSSL (write_eof()): afterwards no read
#   could succeed any more.
# - After an error OpenSSL calls every later one an unexpected EOF.  So the first is kept.
from __future__ import annotations

import ssl
from typing import Any, Literal, overload

import trio

# Bytes of the longest record's content (RFC 8446 §5.1).  One read never returns more.
_RECORD_SIZE = 16384
# Bytes to feed at a time, at least a whole record.  OpenSSL never shrinks a BIO, so an
# idle connection would else keep room for the longest input that it ever had.
_FED_SIZE = 16640


class TLSSession:
    """The state of TLS, for either side, and the attributes of :class:`ssl.SSLObject`.

    Args:
        ssl_context: The context for our side.
        server_side: Whether we are the server.
        server_hostname: The name that the server's certificate must have.
        received: Bytes that were already received from the peer.

    Raises:
        ValueError: The context checks the name and ``server_hostname`` is missing.
        ssl.SSLError: The context is for the other side.
    """

    __slots__ = (
        "_backlog",
        "_decrypted",
        "_deferred",
        "_dry",
        "_ended",
        "_failure",
        "_handshaken",
        "_incoming",
        "_outgoing",
        "_peer_ended",
        "_tls",
    )

    def __init__(
        self,
        ssl_context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | bytes | None,
        received: bytes,
    ) -> None:
        if ssl_context.check_hostname and not (server_side or server_hostname):
            # Without a name the ssl module silently checks none.
            raise ValueError("ssl_context checks the name: server_hostname is missing")
        if isinstance(server_hostname, str) and not server_hostname.isascii():
            # The codec of the standard library knows only the rules of 2003.
            import idna

            server_hostname = idna.encode(server_hostname, uts46=True)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject = ssl_context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
        )
        self._handshaken = False
        # Our close_notify was made; no bytes of the peer will come any more.
        self._ended = False
        self._peer_ended = False
        # The first error, which broke the session.
        self._failure: OSError | None = None
        # Whether a read is known to return nothing before more bytes are fed; never after
        # the end.
        self._dry = not received
        # Bytes of the peer that are still to be fed.
        self._backlog: bytes | memoryview = b""
        # Decrypted bytes that had to be read before our end could be made.
        self._decrypted = b""
        # Bytes in the outgoing BIO that wait for others: session tickets.
        self._deferred = 0
        if received:
            self._feed(received)

    # Each of these raises ssl.SSLError if the session breaks; the alert that says why is
    # then among the bytes to send.

    def _step_handshake(self) -> bool:
        """Go on with the handshake; return whether it is over."""
        if self._failure is not None:
            raise self._failure
        if self._handshaken:
            return True
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as exc:
            self._break(exc)
            raise
        self._handshaken = True
        # The last flight may have brought the first data.
        self._dry = not self._incoming.pending and not self._backlog
        if self._tls.server_side and self._tls.version() == "TLSv1.3":
            self._deferred = self._outgoing.pending
        return True

    def _has_output(self) -> bool:
        """Return whether there are bytes to send that cannot wait for others."""
        return self._outgoing.pending > self._deferred

    def _take_output(self) -> bytes:
        """Return all bytes to send."""
        self._deferred = 0
        return self._outgoing.read()

    def _feed(self, data: bytes | bytearray) -> None:
        """Add bytes of the peer, after all earlier ones were used up."""
        if len(data) <= _FED_SIZE:
            self._incoming.write(data)
        else:
            self._backlog = memoryview(data)
            self._feed_backlog()
        self._dry = False

    def _feed_backlog(self) -> None:
        """Add a part of the bytes that did not fit before."""
        self._dry = False
        backlog = self._backlog
        self._incoming.write(backlog[:_FED_SIZE])
        # An empty view would keep all bytes alive.
        self._backlog = backlog[_FED_SIZE:] if len(backlog) > _FED_SIZE else b""

    def _decrypt(self, max_bytes: int) -> bytes | None:
        """Return decrypted bytes, those of several records joined, at most ``max_bytes``.

        Returns:
            ``b""`` after the peer's close_notify; None if more has to be fed first.
        """
        if self._decrypted:
            data, self._decrypted = (
                self._decrypted[:max_bytes],
                self._decrypted[max_bytes:],
            )
            return data
        if self._peer_ended:
            return b""
        if self._failure is not None:
            raise self._failure
        first = self._read(min(max_bytes, _RECORD_SIZE))
        if not first:
            return first
        left = max_bytes - len(first)
        if self._backlog and self._incoming.pending < _FED_SIZE:
            self._feed_backlog()
        # Without more input the next read would only raise SSLWantReadError, which takes
        # as long as a small record.
        if not left or not self._incoming.pending:
            self._dry = left > 0
            return first
        chunks = [first]
        while left and self._incoming.pending:
            try:
                chunk = self._read(min(left, _RECORD_SIZE))
            except ssl.SSLError:
                # The error was kept for the next call.
                break
            if not chunk:
                break
            chunks.append(chunk)
            left -= len(chunk)
            if self._backlog and self._incoming.pending < _FED_SIZE:
                self._feed_backlog()
        else:
            self._dry = left > 0
        return b"".join(chunks)

    def _read(self, max_bytes: int) -> bytes | None:
        try:
            data = self._tls.read(max_bytes)
        except ssl.SSLWantReadError:
            self._dry = True
            return None
        except ssl.SSLZeroReturnError:
            # The peer's close_notify came after ours.
            data = b""
        except ssl.SSLError as exc:
            self._break(exc)
            raise
        if not data:
            self._meet_end()
        return data

    def _meet_end(self) -> None:
        """Note that no bytes of the peer will come any more."""
        self._peer_ended = True
        self._dry = False

    def _encrypt(self, data: bytes | bytearray | memoryview) -> bool:
        """Encrypt all of ``data``, which must not be empty.

        Returns:
            False if bytes of the peer have to be fed first, because it renegotiates; then
            the call has to be made again with the same data.
        """
        if self._failure is not None:
            raise self._failure
        try:
            self._tls.write(data)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as exc:
            self._break(exc)
            raise
        return True

    def _end(self) -> None:
        """Make our close_notify; afterwards nothing can be encrypted."""
        if self._failure is not None:
            raise self._failure
        if pending := self._tls.pending():
            self._decrypted += self._tls.read(pending)
            self._dry = False
        unread = self._incoming.read()
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            # The peer has not ended its direction so far.
            pass
        except ssl.SSLError as exc:
            self._break(exc)
            raise
        finally:
            if unread:
                self._incoming.write(unread)
                self._dry = False
        self._ended = True

    def _break(self, exc: OSError) -> None:
        """Note the error that broke the session; each later call raises it."""
        self._failure = exc
        self._dry = False

    def _take_unread(self) -> bytes:
        """Return the bytes that came after the peer's end."""
        unread, self._backlog = self._incoming.read() + self._backlog, b""
        return unread

    # The attributes that trio.SSLStream has.

    @property
    def context(self) -> ssl.SSLContext:
        """See :attr:`ssl.SSLSocket.context`; an SNI callback sets it."""
        return self._tls.context

    @context.setter
    def context(self, context: ssl.SSLContext) -> None:
        self._tls.context = context

    @property
    def server_side(self) -> bool:
        """Whether we are the server."""
        return self._tls.server_side

    @property
    def server_hostname(self) -> str | None:
        """The name that the server's certificate must have."""
        return self._tls.server_hostname

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, to be resumed later; set it before the handshake to resume it."""
        return self._tls.session

    @session.setter
    def session(self, session: ssl.SSLSession) -> None:
        self._tls.session = session

    def pending(self) -> int:
        """Return the number of bytes that can be received without waiting."""
        return len(self._decrypted) + self._tls.pending()

    @property
    def has_buffered(self) -> bool:
        """Whether bytes of the peer, or its end, were received and not returned so far.

        False before a whole record has come, and for what is in the transport.
        """
        return bool(
            self.pending()
            or self._incoming.pending
            or self._backlog
            or self._peer_ended
        )

    @property
    def session_reused(self) -> bool:
        """Whether an earlier session was resumed."""
        return bool(self._after_handshake("session_reused").session_reused)

    @overload
    def getpeercert(
        self, binary_form: Literal[False] = False
    ) -> dict[str, Any] | None: ...

    @overload
    def getpeercert(self, binary_form: Literal[True]) -> bytes | None: ...

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """See :meth:`ssl.SSLSocket.getpeercert`."""
        return self._after_handshake("getpeercert").getpeercert(binary_form)

    def cipher(self) -> tuple[str, str, int] | None:
        """See :meth:`ssl.SSLSocket.cipher`."""
        return self._after_handshake("cipher").cipher()

    def shared_ciphers(self) -> list[tuple[str, str, int]] | None:
        """See :meth:`ssl.SSLSocket.shared_ciphers`."""
        return self._after_handshake("shared_ciphers").shared_ciphers()

    def compression(self) -> str | None:
        """See :meth:`ssl.SSLSocket.compression`."""
        return self._after_handshake("compression").compression()

    def selected_alpn_protocol(self) -> str | None:
        """See :meth:`ssl.SSLSocket.selected_alpn_protocol`."""
        return self._after_handshake("selected_alpn_protocol").selected_alpn_protocol()

    def get_channel_binding(self, cb_type: str = "tls-unique") -> bytes | None:
        """See :meth:`ssl.SSLSocket.get_channel_binding`."""
        return self._after_handshake("get_channel_binding").get_channel_binding(cb_type)

    def version(self) -> str | None:
        """See :meth:`ssl.SSLSocket.version`."""
        return self._after_handshake("version").version()

    def _after_handshake(self, name: str) -> ssl.SSLObject:
        if not self._handshaken:
            raise trio.NeedHandshakeError(f"call do_handshake() before {name}")
        return self._tls
