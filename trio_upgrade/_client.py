# Dialling: one request at a time on one connection, and the checked switch.  Nothing runs
# behind the caller's back: every byte is read by the task that asks for it.
from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple, final

import trio

from ._body import Body
from ._closing import close_in_stages, close_now, close_within, end_stream
from ._connection import HTTPConnection
from ._errors import (
    BadResponse,
    BodyError,
    IllegalSwitch,
    MalformedMessage,
    PeerGone,
    UpgradeRefused,
    UsageError,
)
from ._handshake import find_switch_defect, offer_fields
from ._headers import Field, HeadersLike, encode_fields, field_values
from ._limits import Limits
from ._messages import ClientResponse, ResponseHead
from ._stream import UpgradedStream
from ._target import Endpoint, parse_url
from ._tokens import Offers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_SWITCHING_PROTOCOLS = 101
_LAST_INFORMATIONAL = 199
# What request() writes itself, or what would make an offer of it.
_REQUEST_FORBIDDEN = frozenset({b"content-length", b"transfer-encoding", b"upgrade"})
_METHODS_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})


class _UpgradedFields(NamedTuple):
    response: ResponseHead
    stream: UpgradedStream
    head: bytes


class Upgraded(_UpgradedFields, trio.abc.AsyncResource):
    """A connection that switched: unpack it, and use it as an async context manager.

    ::

        async with await open_upgrade(url, "echo") as (response, stream, head):
            ...

    Leaving the block ends the stream: in stages without an exception (our direction
    first, then up to ``Limits.linger`` seconds for the peer's), by a reset after an
    error, at once under cancellation. A stream that was detached is left alone.

    Attributes:
        response: The head of the 101.
        stream: The connection, first bytes first.
        head: A snapshot of the bytes that are first in the stream.
        informational: The heads of the 1xx responses that came before the 101.
        linger: Seconds that the end may take; from ``Limits.linger``.
    """

    informational: tuple[ResponseHead, ...] = ()
    linger: float | None = 0.0

    async def aclose(self) -> None:
        """End the stream in stages; at once if cancelled."""
        await close_in_stages(self.stream, self.linger)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await end_stream(self.stream, exc_value, self.linger)


async def open_upgrade(
    url: str,
    *protocols: str,
    method: str = "GET",
    headers: HeadersLike = (),
    body: bytes = b"",
    limits: Limits = Limits(),
    stream: trio.abc.Stream | None = None,
) -> Upgraded:
    """Dial a server and switch the connection to one of these protocols.

    Put a timeout round the ``await`` alone, then it does not bound the session::

        with trio.fail_after(10):
            upgraded = await open_upgrade(url, "echo")
        async with upgraded as (response, stream, head):
            ...

    Whatever is raised, cancellation included, leaves nothing open.

    Args:
        url: ``http://`` or ``ws://``, host, port and target.
        protocols: The protocols offered, ``name`` or ``name/version``, most wanted
            first.
        method: Of the request that carries the offer.
        headers: Further fields. A Host field replaces the URL's; options of a
            Connection field are added to ours.
        body: The request's body; it is sent before the switch (RFC 9110 §7.8).
        limits: The bounds of the exchange, and ``linger`` for the end.
        stream: A stream to use instead of dialling, TLS say. It is owned from now on,
            and closed on every outcome but success.

    Returns:
        The connection, which unpacks as ``(response, stream, head)``.

    Raises:
        TypeError: No protocol is given.
        ValueError: The URL, a protocol or a field is malformed, or a field is given
            that the library writes.
        OSError: The server cannot be reached.
        UpgradeRefused: It answered with an ordinary response.
        IllegalSwitch: Its 101 is not a legal answer to this offer.
        BadResponse: Its answer is not HTTP, or over a limit.
        PeerGone: It went away before its answer was complete.
    """
    async with AsyncExitStack() as opened:
        if stream is not None:
            opened.push_async_callback(close_now, stream)
        offer = _Offer(protocols, headers)
        endpoint = parse_url(url)
        if stream is None:
            stream = await _dial(endpoint)
            opened.push_async_callback(close_now, stream)
        connection = ClientConnection(stream, endpoint, limits)
        try:
            upgraded = await connection._switch(  # pyright: ignore[reportPrivateUsage]
                endpoint.target, offer, method, body
            )
        except UpgradeRefused as exc:
            try:
                await exc.response.keep(limits.refusal_body)
            except BodyError:
                # It left in the middle of explaining; the status says enough.
                exc.response.truncated = True
            raise
        opened.pop_all()
        return upgraded


async def open_connection(
    url: str, *, limits: Limits = Limits(), stream: trio.abc.Stream | None = None
) -> ClientConnection:
    """Dial a server for requests, one after the other.

    ::

        async with await open_connection("http://127.0.0.1:1337") as connection:
            response = await connection.request("GET", "/")
            print(response.status, await response.read())

    Args:
        url: ``http://`` or ``ws://``, host and port; its path plays no part.
        limits: The bounds of every exchange.
        stream: A stream to use instead of dialling. It is owned from now on, and
            closed if this raises.

    Raises:
        ValueError: The URL is malformed.
        OSError: The server cannot be reached.
    """
    async with AsyncExitStack() as opened:
        if stream is not None:
            opened.push_async_callback(close_now, stream)
        endpoint = parse_url(url)
        if stream is None:
            stream = await _dial(endpoint)
        opened.pop_all()
        return ClientConnection(stream, endpoint, limits)


async def _dial(endpoint: Endpoint) -> trio.abc.Stream:
    if endpoint.secure:
        # Never in clear text by mistake.
        raise ValueError("no TLS here: open the TLS stream and give it as stream=")
    return await trio.open_tcp_stream(endpoint.host, endpoint.port)


@final
class ClientConnection(trio.abc.AsyncResource):
    """A connection to a server, for one request at a time; from :func:`open_connection`.

    Not for two tasks at a time.
    """

    def __init__(
        self, stream: trio.abc.Stream, endpoint: Endpoint, limits: Limits
    ) -> None:
        # None once it is closed or has become something else.
        self._stream: trio.abc.Stream | None = stream
        self._http = HTTPConnection(stream, "client", limits)
        self._host_field = endpoint.host_field
        self._limits = limits
        self._used = False

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: HeadersLike = (),
        body: bytes = b"",
    ) -> ClientResponse:
        """Make a request and receive the head of the final response.

        Read the body to its end before the next request. Cancelled or failed, the
        connection is closed.

        Args:
            method: The method; not CONNECT.
            target: The request target, ``/path?query`` usually.
            headers: Further fields; a Host field replaces ours.
            body: The request's body.

        Raises:
            ValueError: The request is malformed, or a field is given that the library
                writes.
            UsageError: The last response's body is not read to its end.
            IllegalSwitch: A 101 came, though nobody had asked for a switch.
            BadResponse: The answer is not HTTP, or over a limit.
            PeerGone: The server went away, now or after its last response.
            trio.ClosedResourceError: The connection is closed or has switched.
        """
        fields = encode_fields(headers, forbidden=_REQUEST_FORBIDDEN)
        head, informational = await self._exchange(method, target, fields, body, None)
        return self._respond(head, informational)

    async def upgrade(
        self,
        target: str,
        *protocols: str,
        method: str = "GET",
        headers: HeadersLike = (),
        body: bytes = b"",
    ) -> Upgraded:
        """Offer to switch this connection to one of these protocols.

        Accepted, the connection becomes the result and this object counts as closed.
        Refused, it is as after :meth:`request`, with the response in the exception.
        Otherwise failed or cancelled, it is closed.

        Args:
            target: The request target.
            protocols: The protocols offered, most wanted first.
            method: Of the request that carries the offer.
            headers: Further fields; see :func:`open_upgrade`.
            body: The request's body.

        Raises:
            TypeError: No protocol is given.
            UpgradeRefused: The server answered with an ordinary response.
            IllegalSwitch: Its 101 is not a legal answer to this offer.
        """
        return await self._switch(target, _Offer(protocols, headers), method, body)

    async def _switch(
        self, target: str, offer: _Offer, method: str, body: bytes
    ) -> Upgraded:
        # What upgrade() and open_upgrade() share.
        head, informational = await self._exchange(
            method, target, offer.fields, body, offer.protocols
        )
        if head.status != _SWITCHING_PROTOCOLS:
            raise UpgradeRefused(self._respond(head, informational))
        assert self._stream is not None
        rest, ended = self._http.hand_over()
        stream = UpgradedStream(self._stream, rest, ended=ended)
        self._stream = None
        upgraded = Upgraded(head, stream, rest)
        upgraded.informational = informational
        upgraded.linger = self._limits.linger
        return upgraded

    async def aclose(self) -> None:
        """Close the connection; nothing happens if it has switched.

        What TLS has to say for it is waited for, ``Limits.linger`` seconds at most.
        """
        stream, self._stream = self._stream, None
        if stream is None:
            await trio.lowlevel.checkpoint()
        else:
            await close_within(stream, self._limits.linger)

    def _respond(
        self, head: ResponseHead, informational: tuple[ResponseHead, ...]
    ) -> ClientResponse:
        http = self._http
        body = Body(http.receive_body, http.codec.body_left, self._limits.body_bytes)
        return ClientResponse(head, informational, body)

    async def _exchange(
        self,
        method: str,
        target: str,
        given: Sequence[Field],
        body: bytes,
        offers: Offers | None,
    ) -> tuple[ResponseHead, tuple[ResponseHead, ...]]:
        # The head of the final response, or of a legal 101.
        if method == "CONNECT":
            raise ValueError("CONNECT asks for a tunnel, not for a response")
        stream = await self._claim()
        fields = self._complete(method, given, body)
        request = self._http.codec.write_request(method, target, fields, body)
        self._used = True
        try:
            # It may have answered before the body was through; if it did not, the
            # next receive says so.
            with suppress(trio.BrokenResourceError):
                await self._http.send_request(request)
            return await self._receive_final(offers)
        except MalformedMessage as exc:
            await self._abandon(stream)
            raise BadResponse(str(exc)) from exc
        except trio.BrokenResourceError as exc:
            await self._abandon(stream)
            raise PeerGone("the connection broke before the answer") from exc
        except BaseException:
            await self._abandon(stream)
            raise

    async def _claim(self) -> trio.abc.Stream:
        # The stream, if a request may be made on it now.
        if self._stream is None:
            raise trio.ClosedResourceError("this connection is closed or has switched")
        if self._used:
            http = self._http
            if not http.codec.body_ended:
                raise UsageError("the last response's body is not read to its end")
            if http.codec.has_read_ahead:
                # RFC 9112 §9.2: not to be taken for a response.
                await self._abandon(self._stream)
                raise BadResponse("the server sent more than its response")
            if not http.reusable:
                await self._abandon(self._stream)
                raise PeerGone("the last response ended the connection")
        return self._stream

    def _complete(
        self, method: str, given: Sequence[Field], body: bytes
    ) -> list[Field]:
        fields = [*given]
        if not field_values(fields, b"host"):
            fields.insert(0, (b"Host", self._host_field))
        # RFC 9110 §8.6: where a body is expected, its absence is said, too.
        if body or method in _METHODS_WITH_CONTENT:
            fields.append((b"Content-Length", b"%d" % len(body)))
        return fields

    async def _receive_final(
        self, offers: Offers | None
    ) -> tuple[ResponseHead, tuple[ResponseHead, ...]]:
        informational: list[ResponseHead] = []
        while True:
            head = await self._http.receive_response()
            if head.status == _SWITCHING_PROTOCOLS:
                defect = find_switch_defect(
                    offers or Offers(), head.http_version, head.headers
                )
                if defect is not None:
                    raise IllegalSwitch(defect)
            elif head.status <= _LAST_INFORMATIONAL:
                if len(informational) == self._limits.informational:
                    raise MalformedMessage("too many informational responses")
                informational.append(head)
                continue
            return head, tuple(informational)

    async def _abandon(self, stream: trio.abc.Stream) -> None:
        self._stream = None
        await close_now(stream)


@final
class _Offer:
    # A checked offer: made before anything is opened.
    def __init__(self, protocols: Sequence[str], headers: HeadersLike) -> None:
        if not protocols:
            raise TypeError("at least one protocol has to be offered")
        self.protocols: Offers = Offers(protocols)
        self.fields: list[Field] = offer_fields(protocols, headers)
