# One client connection: one request at a time, and the checked switch.  No task runs in
# the background: every byte is read by the task that asks for it, and the one task that
# sends a body, while the response may already come, ends with the call.
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, final

import trio

from .._errors import (
    BadResponse,
    BodyError,
    IllegalSwitch,
    MalformedMessage,
    OpenError,
    PeerGone,
    UsageError,
)
from .._http.headers import encode_fields
from .._http.messages import ResponseHead, opens_tunnel
from .._http.switching import expects_anything
from .._http_stream import SMALL_BODY
from .._streams.closing import (
    close_forcefully,
    close_gracefully,
    close_without_linger,
)
from .._streams.socket_stream import DirectSocketStream
from .._streams.tls import TLSStream
from .._streams.upgraded import UpgradedStream
from .._util import public
from .body_end import BodyReceiver
from .breaks import raise_break
from .http import ClientHTTP
from .request_head import CheckedRequest, Offer, RequestBody, ask_for_tunnel
from .request_sender import RequestSender
from .response import ClientResponse, TunnelRefused, UpgradeRefused, refusal_seconds
from .upgraded import UpgradedConnection
from .wording import ANSWER, BEFORE_REQUEST, SENDING, name_exchange, name_failure

if TYPE_CHECKING:
    from types import TracebackType

    from .._body import Body
    from .._http.headers import HeadersLike
    from .._limits import Limits
    from .body_end import AtEnd
    from .request_head import OnInformational, TrailersLike
    from .urls import Endpoint

_SWITCHING_PROTOCOLS = 101
_LAST_INFORMATIONAL = 199
_IDLE_END = "the server ended the idle connection"
# The final response, or a legal 101, and the informational responses before it.
_Heads: TypeAlias = tuple[ResponseHead, tuple[ResponseHead, ...]]
# Fields that request() writes itself, or that would turn the request into an offer.
REQUEST_FORBIDDEN = frozenset({b"transfer-encoding", b"upgrade"})


class Loss(NamedTuple):
    """How far an exchange had come when its peer failed it.

    Attributes:
        begun: Whether the request was begun: if not, nothing was sent, and an iterable
            body was not touched.
        answered: Whether any byte of an answer had come.
    """

    begun: bool
    answered: bool


@public
@final
class ClientConnection(trio.abc.AsyncResource):
    """A connection to a server, for one request at a time; from :func:`open_connection`.

    Use it in ``async with``; leaving the block closes it, without a wait if an exception
    leaves it. Not for two tasks at a time.
    """

    def __init__(
        self, stream: trio.abc.Stream, endpoint: Endpoint, limits: Limits
    ) -> None:
        # None after the connection was closed or has switched.
        self._stream: trio.abc.Stream | None = stream
        self._http = ClientHTTP(stream, limits)
        self._endpoint = endpoint
        self._limits = limits
        self._used = False
        # Of the exchange that goes on; an error of it then names its stage.
        self._sender: RequestSender | None = None
        # The body of the last final response.
        self._body: Body | None = None
        # Awaited at the end of that body; None if it is not needed.
        self._at_end: AtEnd | None = None
        # How far the exchange had come that failed by the peer; None if none did.
        self.loss: Loss | None = None
        # A refused CONNECT ends the connection (RFC 9931 §8), though HTTP would keep it.
        self._spent = False

    @property
    def reusable(self) -> bool:
        """Whether another request can be made, as far as is known without asking.

        False while a response is not read to its end, after a response that ends the
        connection (RFC 9112 §9.3), after bytes that no request asked for (§9.2), and
        when the connection is closed or has switched. True promises nothing: the server
        may end an idle connection at any time, and then :meth:`request` raises
        :exc:`PeerGone`.
        """
        if self._stream is None or self._spent:
            return False
        http = self._http
        if http.ended or http.broken or http.has_buffered:
            return False
        return not self._used or (http.body_ended and http.is_reusable)

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: HeadersLike = (),
        body: RequestBody = b"",
        trailers: TrailersLike = (),
        on_informational: OnInformational | None = None,
    ) -> ClientResponse:
        """Make a request and receive the head of the final response.

        Read the body to its end before the next request. If this is cancelled or fails,
        the connection is closed; an exception that the request's body raises is raised
        here unchanged.

        Args:
            method: The method; not CONNECT.
            target: The request target, usually ``/path?query``. In absolute form
                (RFC 9112 §3.2.2) it is for a proxy at the other end, and gets http for
                ws, https for wss (RFC 6455 §4.1).
            headers: Further fields; a Host field replaces ours, and an Authorization
                field the URL's credentials.
            body: The request's body: bytes, or an async iterable of bytes, for example
                a Trio stream. An iterable is sent as its bytes come, chunked unless
                ``headers`` have a Content-Length, which it must keep to, and is then
                closed. Responses are received meanwhile: a final one ends the sending,
                and the connection cannot be used again. A stream that is neither a
                socket nor our TLS on one may not survive a cut send, so the beginning
                of that response's body is then read first: at most
                ``Limits.refusal_body`` bytes, for ``Limits.linger`` seconds.
            trailers: Fields to send after the body, which must be chunked; or a function
                that returns them, called when the body is sent, for a checksum or for
                fields that are received after a body passed on. Fields of framing,
                routing, authentication, request modifiers and content format are refused
                (RFC 9110 §6.5.1).
            on_informational: An async function that gets the head of each informational
                response as it comes, but of 100 and 101; the final response has all of
                them in any case. The response is not received on while it runs. What it
                raises is raised here unchanged, and the connection is closed.
                ``Limits.informational`` bounds the number of calls.

        Raises:
            ValueError: The request is malformed, or a field is given that the library
                writes, or ``trailers`` for a body that is not chunked; nothing was sent.
                Or the body has another length than its Content-Length, or the function
                returned trailer fields that cannot be sent; the connection is closed.
            TypeError: The body has a type that cannot be sent.
            UsageError: The last response's body is not read to its end.
            IllegalSwitch: A 101 came, although the request did not ask for a switch.
            BadResponse: The response is not HTTP, or over a limit.
            TLSFailed: TLS broke before the answer; in TLS 1.3 this is how a server
                refuses our certificate.
            PeerGone: The server went away, now or after its last response. If it ended
                the idle connection, also with a 408, ``request_sent`` is False.
            trio.ClosedResourceError: The connection is closed or has switched.
        """
        if method == "CONNECT":
            raise ValueError("CONNECT asks for a tunnel, not for a response: connect()")
        fields = encode_fields(headers, forbidden=REQUEST_FORBIDDEN)
        request = CheckedRequest(
            method,
            target,
            fields,
            body,
            self._endpoint,
            trailers=trailers,
            on_informational=on_informational,
        )
        return ClientResponse(*await self.exchange(request))

    async def exchange(
        self,
        request: CheckedRequest,
        at_end: AtEnd | None = None,
    ) -> tuple[ResponseHead, tuple[ResponseHead, ...], Body]:
        """Do what :meth:`request` does, with a request that is already checked.

        Args:
            request: The request.
            at_end: Awaited once, when the end of the response's body has been read; not
                if :attr:`body_ended` is already True when this returns.

        Returns:
            What a :class:`ClientResponse` is made of.
        """
        self._at_end = at_end
        head, informational = await self._perform(request)
        assert self._body is not None
        return head, informational, self._body

    @property
    def body_ended(self) -> bool:
        """Whether the last response was read to its end."""
        return self._http.body_ended

    async def upgrade(
        self,
        target: str,
        *protocols: str,
        method: str = "GET",
        headers: HeadersLike = (),
        body: RequestBody = b"",
        trailers: TrailersLike = (),
        on_informational: OnInformational | None = None,
        tolerate_missing_connection: bool = False,
    ) -> UpgradedConnection:
        """Offer to switch this connection to one of these protocols.

        If the offer is accepted, the connection becomes the result and this object
        counts as closed. If it is refused, the connection is as after :meth:`request`,
        with the response in the exception. After any other failure, or cancellation,
        the connection is closed.

        Args:
            target: The request target.
            protocols: The protocols offered, most wanted first.
            method: The method of the request that carries the offer.
            headers: Further fields; see :func:`open_upgrade`.
            body: The request's body, sent before anything is switched; see
                :meth:`request`.
            trailers: Fields to send after that body; see :meth:`request`.
            on_informational: See :meth:`request`.
            tolerate_missing_connection: Whether a 101 may lack its Connection field.

        Raises:
            TypeError: No protocol is given.
            UpgradeRefused: The server answered with an ordinary response.
            IllegalSwitch: Its 101 is not a legal answer to this offer. Also what
                :meth:`request` raises.
        """
        offer = Offer(
            protocols, headers, tolerate_missing_connection=tolerate_missing_connection
        )
        return await self.switch(
            CheckedRequest(
                method,
                target,
                offer.fields,
                body,
                self._endpoint,
                offer,
                trailers=trailers,
                on_informational=on_informational,
            )
        )

    async def switch(self, request: CheckedRequest) -> UpgradedConnection:
        """Do what :meth:`upgrade` does, with a request that is already checked."""
        head, informational = await self._perform(request)
        if head.status != _SWITCHING_PROTOCOLS:
            named = self._name(request)
            raise UpgradeRefused(self._respond(head, informational), named)
        return self._hand_over(head, informational)

    async def connect(
        self,
        authority: str,
        *,
        headers: HeadersLike = (),
        on_informational: OnInformational | None = None,
    ) -> UpgradedConnection:
        """Ask the proxy at the other end for a tunnel (RFC 9110 §9.3.6).

        Any 2xx opens it, also in HTTP/1.0; its framing fields are ignored. The
        connection then becomes the result and this object counts as closed. If the
        proxy refuses, the response can be read, but no other request can be made
        (RFC 9931 §8). After any other failure, or cancellation, the connection is
        closed.

        Args:
            authority: ``host:port``, an IPv6 address in brackets.
            headers: Further fields. A Proxy-Authorization field replaces the
                credentials of the URL that the connection was opened with.
            on_informational: See :meth:`request`.

        Raises:
            ValueError: The authority is not of that form, or a field is malformed or
                not allowed in a CONNECT.
            TunnelRefused: The proxy answered with something other than a 2xx.
        """
        return await self.tunnel(
            ask_for_tunnel(authority, headers, self._endpoint, on_informational)
        )

    async def tunnel(self, request: CheckedRequest) -> UpgradedConnection:
        """Do what :meth:`connect` does, with a request that is already checked."""
        head, informational = await self._perform(request)
        if not opens_tunnel(head.status):
            self._spent = True
            proxy = self._endpoint.host_field.decode("ascii")
            response = self._respond(head, informational)
            raise TunnelRefused(response, proxy, self._name(request))
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

    def detach(self) -> trio.abc.Stream:
        """Give away the stream of a connection on which no request was made.

        So any protocol can go the way that ``via`` describes: the stream ends at the
        URL's host and port, inside TLS if the URL asks for it. From now on the caller
        owns and closes it, and this connection counts as closed::

            connection = await open_connection("http://example.com:22", via=proxy)
            async with stream_scope(connection.detach()) as stream:
                ...

        Raises:
            UsageError: A request was made on it.
            trio.ClosedResourceError: It is closed or has switched.
        """
        stream = self._stream
        if stream is None:
            raise trio.ClosedResourceError("this connection is closed or has switched")
        if self._used:
            raise UsageError("a request was made on this connection: it is for HTTP")
        self._stream = None
        return stream

    async def aclose(self) -> None:
        """Close the connection; do nothing if it has switched.

        The end of TLS, its close_notify, may take ``Limits.linger`` seconds at most.
        """
        stream, self._stream = self._stream, None
        if stream is None:
            await trio.lowlevel.checkpoint()
        else:
            await close_gracefully(stream, self._limits.linger)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_value is None:
            await self.aclose()
        else:
            # aclose() would raise Cancelled in a cancelled scope, in place of an
            # exception that is no Cancelled.
            await self.close_without_wait()

    async def close_without_wait(self) -> None:
        """Close the connection, also in a cancelled scope; TLS by a close_notify.

        Not a checkpoint for a kernel socket of ours.
        """
        stream, self._stream = self._stream, None
        if stream is not None:
            await close_without_linger(stream)

    async def cut(self) -> None:
        """Close the connection while another task uses it; that one gets Closed."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await close_forcefully(stream)

    def _respond(
        self, head: ResponseHead, informational: tuple[ResponseHead, ...]
    ) -> ClientResponse:
        assert self._body is not None
        return ClientResponse(head, informational, self._body)

    async def _read_early_body(self) -> None:
        # Read the beginning of an early response's body before the sending is cut: a cut
        # send breaks every stream but a socket and our TLS on one, for example TLS of
        # Trio's.
        body, stream = self._body, self._stream
        if (
            body is None
            or isinstance(stream, trio.SocketStream | DirectSocketStream)
            or (isinstance(stream, TLSStream) and stream.is_direct)
        ):
            return
        with trio.move_on_after(refusal_seconds(self._limits)), suppress(BodyError):
            await body.read_beginning(self._limits.refusal_body)

    async def _perform(self, request: CheckedRequest) -> _Heads:
        # Make an exchange; say in an error who failed, and at which stage.
        self.loss = None
        try:
            return await self._exchange(request)
        except OpenError as exc:
            sender = self._sender
            if sender is not None and exc is sender.foreign:
                # Of another peer: the request's body comes from there.
                raise
            stage = BEFORE_REQUEST
            if sender is not None:
                stage = ANSWER if sender.done else SENDING
            self.loss = Loss(sender is not None, self._http.answer_begun)
            name_failure(exc, self._name(request), stage)
            raise
        finally:
            self._sender = None

    def _name(self, request: CheckedRequest) -> str:
        # Not the connection's own endpoint, whose URL may have had other credentials.
        return name_exchange(request.endpoint, request.method, request.target)

    async def _exchange(self, request: CheckedRequest) -> _Heads:
        # Send a request; return the head of the final response, or of a legal 101.
        fields, body, offer = request.fields, request.body, request.offer
        stream = await self._claim()
        head = self._http.write_request(request.method, request.target, fields)
        self._used = True
        self._sender = sender = RequestSender(self._http, head, request)
        try:
            if body and expects_anything(fields):
                sender.wait_for_continue(self._limits.continue_timeout)
            elif isinstance(body, bytes) and len(body) <= SMALL_BODY:
                # The kernel takes that much at once, so no second task is needed.
                await sender.run()
            if sender.done:
                return await self._receive_final(offer, sender)
            return await self._send_and_receive(sender, offer)
        except MalformedMessage as exc:
            await self._abandon(stream)
            if exc is sender.foreign:
                raise
            raise BadResponse(str(exc)) from exc
        except trio.BrokenResourceError as exc:
            await self._abandon(stream)
            if exc is sender.foreign or not self._http.lost:
                # The caller's code broke something, or the source of the body did.
                raise
            raise_break(
                exc,
                None,
                "the connection broke before the answer",
                earlier=self._http.send_failure,
                request_sent=self._http.request_sent,
            )
        except BaseException:
            await self._abandon(stream)
            raise

    async def _send_and_receive(
        self, sender: RequestSender, offer: Offer | None
    ) -> _Heads:
        # Receive the response while a second task sends the request.
        answer: _Heads | None = None
        failure: BaseException | None = None

        async def send() -> None:
            # Kept, as is an exception of the receiving: the nursery would put a single
            # exception into a group.
            nonlocal failure
            try:
                await sender.run()
            except trio.Cancelled:
                raise
            except BaseException as exc:
                failure = exc
                nursery.cancel_scope.cancel(reason="the request cannot be sent")

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, name="trio_upgrade request body")
                try:
                    answer = await self._receive_final(offer, sender)
                    if not sender.done:
                        await self._read_early_body()
                except trio.Cancelled:
                    raise
                except BaseException as exc:
                    failure = exc
                # After a final response the rest of the body is of no use; if any of it
                # is missing, the connection cannot be used again (RFC 9112 §9.3).
                nursery.cancel_scope.cancel(
                    reason="the answer came before the body was sent"
                )
        except BaseException:
            # Cancelled, or a group of it. A failure that was there before comes first.
            if failure is None or answer is not None:
                raise
        if answer is None:
            assert failure is not None
            raise failure
        return answer

    async def _claim(self) -> trio.abc.Stream:
        # Return the stream if a request may be made on it now.
        stream = self._stream
        if stream is None:
            raise trio.ClosedResourceError("this connection is closed or has switched")
        http, used = self._http, self._used
        if used and not http.body_ended:
            raise UsageError("the last response's body is not read to its end")
        # The other end of a tunnel may have sent bytes before the first request.
        if used or isinstance(stream, UpgradedStream):
            try:
                # Before the look, which notices a later end of the server as well.
                over = used and (self._spent or http.ended or not http.is_reusable)
                unasked = await http.has_unasked_input()
                # RFC 9112 §9.2: unasked bytes must not be taken for a response.  They
                # are no mistake of the server if they only explain its end (§9.5).
                gone = http.ended or http.lost
                if unasked and not (http.has_timeout_answer or (used and gone)):
                    raise BadResponse(
                        "the server sent more than its response"
                        if used
                        else "the server spoke before it was asked"
                    )
                if over:
                    raise PeerGone("the last response ended the connection")
                if unasked or gone:
                    raise PeerGone(_IDLE_END)
            except trio.BrokenResourceError as exc:
                await self._abandon(stream)
                raise_break(exc, None, _IDLE_END)
            except BaseException:
                await self._abandon(stream)
                raise
        return stream

    async def _receive_final(
        self, offer: Offer | None, sender: RequestSender
    ) -> _Heads:
        informational: list[ResponseHead] = []
        while True:
            raw = await self._http.receive_response_head()
            if not sender.done:
                await sender.handle_response_head(raw)
            head = self._http.parse_response(raw)
            if head.status == _SWITCHING_PROTOCOLS:
                # Without an offer the codec rejects every 101.
                assert offer is not None
                defect = offer.find_defect(head)
                if defect is not None:
                    raise IllegalSwitch(defect)
            elif head.status <= _LAST_INFORMATIONAL:
                if len(informational) == self._limits.informational:
                    raise MalformedMessage("too many informational responses")
                informational.append(head)
                await sender.inform(head)
                continue
            else:
                self._body = self._make_body()
            return head, tuple(informational)

    def _make_body(self) -> Body:
        limit = self._limits.body_bytes
        if self._at_end is not None:
            return BodyReceiver(self._http, self._report_end).make_body(limit)
        http = self._http
        return http.make_body(
            http.receive_body, limit, http.receive_buffered_body, ends_at_length=True
        )

    async def _report_end(self) -> None:
        # Not from within the exchange, which may read an early response's body: while it
        # goes on, no other may begin. Its caller then finds body_ended set.
        if self._sender is None and self._at_end is not None:
            await self._at_end()

    async def _abandon(self, stream: trio.abc.Stream) -> None:
        self._stream = None
        await close_forcefully(stream)
