# One client connection: one request at a time, and the checked switch.  Nothing runs
# behind the caller's back: every byte is read by the task that asks for it, and the one
# task that sends a body while the answer may come already ends with the call.
from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, final

import trio

from ._body import Body
from ._closing import close_now, close_politely
from ._connection import SMALL_BODY, HTTPConnection
from ._errors import (
    BadResponse,
    IllegalSwitch,
    MalformedMessage,
    PeerGone,
    TunnelRefused,
    UpgradeRefused,
    UsageError,
)
from ._handshake import (
    connect_fields,
    expects_anything,
    find_switch_defect,
    offer_fields,
)
from ._headers import Field, HeadersLike, encode_fields, field_values
from ._messages import ClientResponse, ResponseHead, opens_tunnel
from ._sending import RequestSending
from ._stream import UpgradedStream
from ._target import Endpoint, parse_connect_authority
from ._tokens import Offers
from ._upgraded import Upgraded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._limits import Limits

_SWITCHING_PROTOCOLS = 101
_LAST_INFORMATIONAL = 199
_Answer: TypeAlias = tuple[ResponseHead, tuple[ResponseHead, ...]]
# What request() writes itself, or what would make an offer of it.
_REQUEST_FORBIDDEN = frozenset({b"content-length", b"transfer-encoding", b"upgrade"})
_METHODS_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})


@final
class Offer:
    """A checked offer: made before anything is opened.

    Raises:
        TypeError: No protocol is given.
        ValueError: A protocol or a field is malformed, or the library writes it.
    """

    def __init__(
        self,
        protocols: Sequence[str],
        headers: HeadersLike,
        *,
        tolerate_missing_connection: bool,
    ) -> None:
        if not protocols:
            raise TypeError("at least one protocol has to be offered")
        self.fields: list[Field] = offer_fields(protocols, headers)
        self._protocols = Offers(protocols)
        self._tolerant = tolerate_missing_connection

    def find_defect(self, head: ResponseHead) -> str | None:
        """Return what makes a 101 an illegal answer, None if nothing does."""
        return find_switch_defect(
            self._protocols,
            head.http_version,
            head.headers,
            tolerate_missing_connection=self._tolerant,
        )


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
        # Whether the last answer ended its use, whatever HTTP says.
        self._spent = False

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
        if method == "CONNECT":
            raise ValueError("CONNECT asks for a tunnel, not for a response: connect()")
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
        tolerate_missing_connection: bool = False,
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
            body: The request's body, sent before anything is switched.
            tolerate_missing_connection: Whether a 101 may lack its Connection field.

        Raises:
            TypeError: No protocol is given.
            UpgradeRefused: The server answered with an ordinary response.
            IllegalSwitch: Its 101 is not a legal answer to this offer.
        """
        offer = Offer(
            protocols, headers, tolerate_missing_connection=tolerate_missing_connection
        )
        return await self.switch(target, offer, method, body)

    async def switch(
        self, target: str, offer: Offer, method: str, body: bytes
    ) -> Upgraded:
        """Do what :meth:`upgrade` does, with an offer that is checked already."""
        head, informational = await self._exchange(
            method, target, offer.fields, body, offer
        )
        if head.status != _SWITCHING_PROTOCOLS:
            raise UpgradeRefused(self._respond(head, informational))
        return self._hand_over(head, informational)

    async def connect(self, authority: str, *, headers: HeadersLike = ()) -> Upgraded:
        """Ask the proxy at the other end for a tunnel (RFC 9110 §9.3.6).

        Any 2xx opens it, one in HTTP/1.0 too; its framing fields are ignored. The
        connection then becomes the result and this object counts as closed. Refused,
        the response can be read, and nothing else be asked (RFC 9931 §8). Otherwise
        failed or cancelled, the connection is closed.

        Args:
            authority: ``host:port``, an IPv6 address in brackets.
            headers: Further fields, Proxy-Authorization say.

        Raises:
            ValueError: The authority is not of that form, or a field is malformed or
                one that a CONNECT has not.
            TunnelRefused: The proxy answered with something other than a 2xx.
        """
        parse_connect_authority(authority)
        fields = connect_fields(authority, headers)
        head, informational = await self._exchange(
            "CONNECT", authority, fields, b"", None
        )
        if not opens_tunnel(head.status):
            self._spent = True
            raise TunnelRefused(self._respond(head, informational))
        return self._hand_over(head, informational)

    def _hand_over(
        self, head: ResponseHead, informational: tuple[ResponseHead, ...]
    ) -> Upgraded:
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
            await close_politely(stream, self._limits.linger)

    def _respond(
        self, head: ResponseHead, informational: tuple[ResponseHead, ...]
    ) -> ClientResponse:
        http = self._http
        body = Body(
            http.receive_body,
            http.codec.body_left,
            self._limits.body_bytes,
            lambda: http.codec.trailers,
        )
        return ClientResponse(head, informational, body)

    async def _exchange(
        self,
        method: str,
        target: str,
        given: Sequence[Field],
        body: bytes,
        offer: Offer | None,
    ) -> _Answer:
        # The head of the final response, or of a legal 101.
        if method == "CONNECT" and offer is not None:
            raise ValueError("CONNECT asks for a tunnel and cannot offer anything else")
        fields = self._complete(method, given, body)
        stream = await self._claim()
        head = self._http.codec.write_request(method, target, fields)
        self._used = True
        try:
            sending = RequestSending(self._http, head, body)
            if expects_anything(fields):
                sending.wait_for_continue(self._limits.continue_timeout)
            elif len(body) <= SMALL_BODY:
                # The kernel takes as much; what cannot wait needs no task.
                await sending.run()
            if sending.done:
                return await self._receive_final(offer, sending)
            return await self._converse(sending, offer)
        except MalformedMessage as exc:
            await self._abandon(stream)
            raise BadResponse(str(exc)) from exc
        except trio.BrokenResourceError as exc:
            await self._abandon(stream)
            raise PeerGone("the connection broke before the answer") from exc
        except BaseException:
            await self._abandon(stream)
            raise

    async def _converse(self, sending: RequestSending, offer: Offer | None) -> _Answer:
        # The answer to a request whose body is sent meanwhile.
        answer: _Answer | None = None
        failure: Exception | None = None

        async def send() -> None:
            # Kept, like what the receiving raises: out of a nursery a single error
            # would come as a group.
            nonlocal failure
            try:
                await sending.run()
            except Exception as exc:
                failure = exc
                nursery.cancel_scope.cancel(reason="the request cannot be sent")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, name="trio_upgrade request body")
            try:
                answer = await self._receive_final(offer, sending)
            except Exception as exc:
                failure = exc
            # With a final response the body has lost its purpose, and the connection
            # its use if something of it is missing (RFC 9112 §9.3).
            nursery.cancel_scope.cancel(
                reason="the answer came before the body was sent"
            )
        if answer is None:
            assert failure is not None
            raise failure
        return answer

    async def _claim(self) -> trio.abc.Stream:
        # The stream, if a request may be made on it now.
        if self._stream is None:
            raise trio.ClosedResourceError("this connection is closed or has switched")
        if self._used:
            http = self._http
            if not http.codec.body_ended:
                raise UsageError("the last response's body is not read to its end")
            try:
                if await http.has_unasked_input():
                    # RFC 9112 §9.2: not to be taken for a response.
                    raise BadResponse("the server sent more than its response")
                if self._spent or http.ended or not http.reusable:
                    raise PeerGone("the last response ended the connection")
            except BaseException:
                await self._abandon(self._stream)
                raise
        return self._stream

    def _complete(
        self, method: str, given: Sequence[Field], body: bytes
    ) -> list[Field]:
        fields = [*given]
        if not field_values(fields, b"host"):
            fields.insert(0, (b"Host", self._host_field))
        if not body and expects_anything(fields):
            raise ValueError("Expect: there is no body that could wait for a 100")
        # RFC 9110 §8.6: where a body is expected, its absence is said, too.
        if body or method in _METHODS_WITH_CONTENT:
            fields.append((b"Content-Length", b"%d" % len(body)))
        return fields

    async def _receive_final(
        self, offer: Offer | None, sending: RequestSending
    ) -> _Answer:
        informational: list[ResponseHead] = []
        while True:
            raw = await self._http.receive_response_head()
            if not sending.done:
                await sending.take_in(raw)
            head = self._http.codec.parse_response(raw)
            if head.status == _SWITCHING_PROTOCOLS:
                # Of a request without one the codec lets no 101 through.
                assert offer is not None
                defect = offer.find_defect(head)
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
