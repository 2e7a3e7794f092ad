# One client connection: one request at a time, and the checked switch.  Nothing runs
# behind the caller's back: every byte is read by the task that asks for it, and the one
# task that sends a body while the answer may come already ends with the call.
from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, final

import trio

from .._body import Body
from .._errors import (
    BadResponse,
    BodyError,
    IllegalSwitch,
    MalformedMessage,
    PeerGone,
    UsageError,
)
from .._http.headers import encode_fields
from .._http.messages import ResponseHead, opens_tunnel
from .._http.switching import connect_fields, expects_anything
from .._http.targets import parse_connect_authority
from .._http_stream import SMALL_BODY
from .._streams.closing import close_forcefully, close_gracefully
from .._streams.socket_stream import DirectSocketStream
from .._streams.upgraded import UpgradedStream
from .._util import public
from .http import ClientHTTP
from .request_head import Offer, RequestBody, complete_fields
from .request_sender import RequestSender
from .response import ClientResponse, Refused, TunnelRefused, UpgradeRefused
from .upgraded import UpgradedConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._http.headers import Field, HeadersLike
    from .._limits import Limits
    from .urls import Endpoint

_SWITCHING_PROTOCOLS = 101
_LAST_INFORMATIONAL = 199
_Answer: TypeAlias = tuple[ResponseHead, tuple[ResponseHead, ...]]
# What request() writes itself, or what would make an offer of it.
_REQUEST_FORBIDDEN = frozenset({b"transfer-encoding", b"upgrade"})


@public
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
        self._http = ClientHTTP(stream, limits)
        self._endpoint = endpoint
        self._limits = limits
        self._used = False
        # Of the last final response.
        self._body: Body | None = None
        # Whether the last answer ended its use, whatever HTTP says.
        self._spent = False

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: HeadersLike = (),
        body: RequestBody = b"",
    ) -> ClientResponse:
        """Make a request and receive the head of the final response.

        Read the body to its end before the next request. Cancelled or failed, the
        connection is closed; what the request's body raises comes out of here as it is.

        Args:
            method: The method; not CONNECT.
            target: The request target, ``/path?query`` usually. In absolute form
                (RFC 9112 §3.2.2) it is for a proxy at the other end.
            headers: Further fields; a Host field replaces ours, and an Authorization
                field the URL's credentials.
            body: The request's body: bytes, or an async iterable of bytes, a Trio
                stream say. That is sent as it comes, chunked unless ``headers`` have a
                Content-Length, which it must keep to, and closed behind it. The answer
                is heard meanwhile; a final one ends the sending, and with it the use of
                the connection. Over TLS, which does not survive that, the beginning of
                that answer's body is read before: ``Limits.refusal_body`` bytes or
                ``Limits.linger`` seconds of it.

        Raises:
            ValueError: The request is malformed, or a field is given that the library
                writes; or the body has another length than its Content-Length, and the
                connection is closed.
            TypeError: The body is of no such type.
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
        body: RequestBody = b"",
        tolerate_missing_connection: bool = False,
    ) -> UpgradedConnection:
        """Offer to switch this connection to one of these protocols.

        Accepted, the connection becomes the result and this object counts as closed.
        Refused, it is as after :meth:`request`, with the response in the exception.
        Otherwise failed or cancelled, it is closed.

        Args:
            target: The request target.
            protocols: The protocols offered, most wanted first.
            method: Of the request that carries the offer.
            headers: Further fields; see :func:`open_upgrade`.
            body: The request's body, sent before anything is switched; see
                :meth:`request`.
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
        self, target: str, offer: Offer, method: str, body: RequestBody
    ) -> UpgradedConnection:
        """Do what :meth:`upgrade` does, with an offer that is checked already."""
        head, informational = await self._exchange(
            method, target, offer.fields, body, offer
        )
        if head.status != _SWITCHING_PROTOCOLS:
            raise UpgradeRefused(self._respond(head, informational))
        return self._hand_over(head, informational)

    async def connect(
        self, authority: str, *, headers: HeadersLike = ()
    ) -> UpgradedConnection:
        """Ask the proxy at the other end for a tunnel (RFC 9110 §9.3.6).

        Any 2xx opens it, one in HTTP/1.0 too; its framing fields are ignored. The
        connection then becomes the result and this object counts as closed. Refused,
        the response can be read, and nothing else be asked (RFC 9931 §8). Otherwise
        failed or cancelled, the connection is closed.

        Args:
            authority: ``host:port``, an IPv6 address in brackets.
            headers: Further fields. A Proxy-Authorization field replaces the
                credentials of the URL that the connection was opened with.

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
            proxy = self._endpoint.host_field.decode("ascii")
            raise TunnelRefused(self._respond(head, informational), proxy)
        return self._hand_over(head, informational)

    def _hand_over(
        self, head: ResponseHead, informational: tuple[ResponseHead, ...]
    ) -> UpgradedConnection:
        assert self._stream is not None
        rest, ended = self._http.detach()
        stream = UpgradedStream(self._stream, rest, ended=ended)
        self._stream = None
        upgraded = UpgradedConnection(head, stream, rest)
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
            await close_gracefully(stream, self._limits.linger)

    def _respond(
        self, head: ResponseHead, informational: tuple[ResponseHead, ...]
    ) -> ClientResponse:
        body = self._body
        assert body is not None
        return ClientResponse(head, informational, body)

    async def _keep_early(self) -> None:
        # What can be had of an early answer's body before sending is cut: on anything
        # but a plain socket that breaks the stream, TLS for one.
        body = self._body
        if body is None or isinstance(
            self._stream, trio.SocketStream | DirectSocketStream
        ):
            return
        linger = self._limits.linger
        with trio.move_on_after(math.inf if linger is None else linger):
            with suppress(BodyError):
                await body.read_beginning(self._limits.refusal_body)

    async def _exchange(
        self,
        method: str,
        target: str,
        given: Sequence[Field],
        body: RequestBody,
        offer: Offer | None,
    ) -> _Answer:
        # The head of the final response, or of a legal 101.
        if method == "CONNECT" and offer is not None:
            raise ValueError("CONNECT asks for a tunnel and cannot offer anything else")
        fields = complete_fields(method, target, given, body, self._endpoint)
        stream = await self._claim()
        head = self._http.write_request(method, target, fields)
        self._used = True
        try:
            sender = RequestSender(self._http, head, body)
            if body and expects_anything(fields):
                sender.wait_for_continue(self._limits.continue_timeout)
            elif isinstance(body, bytes) and len(body) <= SMALL_BODY:
                # The kernel takes as much; what cannot wait needs no task.
                await sender.run()
            if sender.done:
                return await self._receive_final(offer, sender)
            return await self._converse(sender, offer)
        except MalformedMessage as exc:
            await self._abandon(stream)
            raise BadResponse(str(exc)) from exc
        except trio.BrokenResourceError as exc:
            await self._abandon(stream)
            if not self._http.lost:
                # That of what the body comes from.
                raise
            raise PeerGone("the connection broke before the answer") from exc
        except BaseException:
            await self._abandon(stream)
            raise

    async def _converse(self, sender: RequestSender, offer: Offer | None) -> _Answer:
        # The answer to a request whose body is sent meanwhile.
        answer: _Answer | None = None
        failure: Exception | None = None

        async def send() -> None:
            # Kept, like what the receiving raises: out of a nursery a single error
            # would come as a group.
            nonlocal failure
            try:
                await sender.run()
            except Exception as exc:
                failure = exc
                nursery.cancel_scope.cancel(reason="the request cannot be sent")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, name="trio_upgrade request body")
            try:
                answer = await self._receive_final(offer, sender)
                if not sender.done:
                    await self._keep_early()
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
        stream = self._stream
        if stream is None:
            raise trio.ClosedResourceError("this connection is closed or has switched")
        http, used = self._http, self._used
        if used and not http.body_ended:
            raise UsageError("the last response's body is not read to its end")
        # The end of a tunnel may have spoken before the first request.
        if used or isinstance(stream, UpgradedStream):
            try:
                if await http.has_unasked_input():
                    # RFC 9112 §9.2: not to be taken for a response.
                    raise BadResponse(
                        "the server sent more than its response"
                        if used
                        else "the server spoke before it was asked"
                    )
                if used and (self._spent or http.ended or not http.is_reusable):
                    raise PeerGone("the last response ended the connection")
            except BaseException:
                await self._abandon(stream)
                raise
        return stream

    async def _receive_final(
        self, offer: Offer | None, sender: RequestSender
    ) -> _Answer:
        informational: list[ResponseHead] = []
        while True:
            raw = await self._http.receive_response_head()
            if not sender.done:
                await sender.take_in(raw)
            head = self._http.parse_response(raw)
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
            else:
                self._body = self._make_body()
            return head, tuple(informational)

    def _make_body(self) -> Body:
        http = self._http
        return Body(
            http.receive_body,
            http.body_left,
            self._limits.body_bytes,
            http.get_trailers,
        )

    async def _abandon(self, stream: trio.abc.Stream) -> None:
        self._stream = None
        await close_forcefully(stream)


async def read_refusal(refusal: Refused, limits: Limits) -> None:
    """Read the body of a refusal, ``Limits.refusal_body`` bytes of it at most.

    And for ``Limits.linger`` seconds: what refuses need not say why for ever.
    """
    linger = limits.linger
    try:
        with trio.move_on_after(math.inf if linger is None else linger):
            await refusal.response.keep(limits.refusal_body)
    except BodyError:
        # It left in the middle of explaining; the status says enough.
        refusal.response.truncated = True
