# One request through a proxy, from the choice of the upstream to the end of the answer.
#
#     open and ask --> the verdict --> pass on an ordinary answer
#     (the client's leaving         \-> switch: both sides are relayed
#      cancels this part)
#
# Nothing but the request goes to the upstream before its verdict, and nothing of the
# upstream's switch to the client before it was checked.  Both proxies use this.
from __future__ import annotations

import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, final

import trio

from .. import (
    BodyError,
    ClientResponse,
    ConnectionPool,
    Headers,
    IllegalSwitch,
    OpenError,
    Response,
    ResponseHead,
    UpgradedConnection,
    UpgradeRefused,
    open_connection,
)
from .failures import ANSWER_TIMEOUT, CLOSED, CONNECT_TIMEOUT, Failure, name_failure
from .fields import binds_connection, fields_of_101, response_fields, trailer_fields
from .offers import choose_offers
from .tunnels import Counters, TunnelOptions, run_tunnel

if TYPE_CHECKING:
    import ssl

    from .. import ClientConnection, DialOptions, Request, StreamedResponse
    from .fields import Field
    from .outgoing import OutgoingRequest

ModifyResponse: TypeAlias = "Callable[[Request, ResponseHead], ResponseHead]"
OnError: TypeAlias = "Callable[[Request, Response, Exception], Response]"

_RESET_CONTENT = 205
_UPGRADE_REQUIRED = 426
_NO_CONTENT_FOLLOWS = frozenset({204, _RESET_CONTENT, 304})
# RFC 9110 §7.8: name[/version], two tokens.
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105
_is_protocol = re.compile(f"{_TOKEN}(?:/{_TOKEN})?").fullmatch
_log = logging.getLogger("trio_upgrade.proxy")


class Failed(Exception):
    """The upstream failed before its answer; never leaves this package.

    Args:
        failure: What the client is told.
        cause: What happened.
    """

    def __init__(self, failure: Failure, cause: Exception) -> None:
        super().__init__(failure.text)
        self.failure = failure
        self.cause = cause


class _UpstreamCut(Exception):
    # Leaves a respond() block, so that the client sees a reset and not a short answer.
    pass


@final
@dataclass(frozen=True, slots=True)
class Rules:
    """What a proxy was told about the requests that it forwards.

    Attributes:
        allows: Whether an offer goes on.
        more_fields: Names, in lower case, of fields of a 101 that go on beside those
            that always do.
        modify_response: Changes the head of an answer; None for nothing.
        on_error: Changes our answer to a failure; None for nothing.
        connect_timeout: Seconds to connect; None disables it.
        response_timeout: Seconds without progress until an answer; None disables it.
        upgrade_timeout: The same for a request with an offer.
        via: Our name, if answers get a Via field; else None.
        tunnels: How tunnels are relayed.
    """

    allows: Callable[[Request, str], bool]
    more_fields: frozenset[bytes]
    modify_response: ModifyResponse | None
    on_error: OnError | None
    connect_timeout: float | None
    response_timeout: float | None
    upgrade_timeout: float | None
    via: str | None
    tunnels: TunnelOptions


class PoolBounds(NamedTuple):
    """The bounds of the pool of a proxy; see :class:`ConnectionPool`."""

    connections: int
    per_origin: int | None
    idle_timeout: float | None


@final
class Forwarder:
    """Forwards requests by the rules of one proxy."""

    def __init__(self, rules: Rules, bounds: PoolBounds, options: DialOptions) -> None:
        self.rules = rules
        self.counters = Counters()
        # Made when an offer first goes on over TLS: to make one takes some 10 ms.
        self._context: ssl.SSLContext | None = None
        # A cut must not pass for the end of an answer: TLS has to say its end.
        self._options: DialOptions = {"https_compatible": False, **options}
        self.pool = ConnectionPool(
            connections=bounds.connections,
            per_origin=bounds.per_origin,
            idle_timeout=bounds.idle_timeout,
            connect_timeout=rules.connect_timeout,
            **self._options,
        )

    async def forward(
        self, request: Request, origins: Sequence[str], outgoing: OutgoingRequest
    ) -> Response | None:
        """Forward a request and send its answer.

        Args:
            request: The request.
            origins: The URLs of the upstream; the next one is tried if one cannot be
                reached.
            outgoing: The request as the upstream gets it.

        Returns:
            An answer that the caller sends, or None if it was sent, or if the client is
            gone.

        Raises:
            BodyError: The client's body is broken.
            trio.BrokenResourceError: The client is gone.
        """
        self.counters.requests += 1
        try:
            async with AsyncExitStack() as stack:
                verdict: ClientResponse | UpgradedConnection | None = None
                async with request.cancelled_on_disconnect():
                    verdict = await self._ask(stack, request, origins, outgoing)
                if isinstance(verdict, UpgradedConnection):
                    await self._switch(request, verdict)
                elif verdict is not None:
                    return await self._pass_on(request, verdict)
                return None
        except Failed as failed:
            return self.answer_failure(request, failed)

    def answer_failure(self, request: Request, failed: Failed) -> Response:
        """Return the answer to a failure, and count it."""
        self.counters.failures += 1
        _log.info("%r: %s: %r", request, failed.failure.text, failed.cause)
        response = failed.failure.respond()
        if self.rules.on_error is not None:
            response = self.rules.on_error(request, response, failed.cause)
        return response

    ################################################################
    # The question and the verdict
    ################################################################

    async def _ask(
        self,
        stack: AsyncExitStack,
        request: Request,
        origins: Sequence[str],
        outgoing: OutgoingRequest,
    ) -> ClientResponse | UpgradedConnection:
        # Returns the verdict of the first upstream that can be reached; `stack` owns it.
        protocols = choose_offers(request, self.rules.allows)
        *others, last = origins
        seconds = self.rules.response_timeout
        ends = trio.current_time() + (math.inf if seconds is None else seconds)
        for origin in others:
            try:
                return await self._ask_one(stack, request, origin, outgoing, protocols)
            except OSError:
                continue
            except Failed as failed:
                # Nothing was sent, as after an OSError.  All other failures are final.
                # A name may have thousands of addresses that take no connection.
                if failed.failure is not CONNECT_TIMEOUT or trio.current_time() > ends:
                    raise
        try:
            return await self._ask_one(stack, request, last, outgoing, protocols)
        except OSError as exc:
            raise Failed(name_failure(exc), exc) from exc

    async def _ask_one(
        self,
        stack: AsyncExitStack,
        request: Request,
        origin: str,
        outgoing: OutgoingRequest,
        protocols: Sequence[str],
    ) -> ClientResponse | UpgradedConnection:
        try:
            if not protocols:
                body = _PatientBody(request, self.rules.response_timeout)
                with body.scope:
                    return await self._request(stack, request, origin, outgoing, body)
            else:
                connection = await self._connect(origin)
                await stack.enter_async_context(connection)
                body = _PatientBody(request, self.rules.upgrade_timeout)
                with body.scope:
                    return await self._upgrade(
                        stack, request, connection, outgoing, protocols, body
                    )
        except OpenError as exc:
            raise Failed(name_failure(exc), exc) from exc
        except trio.TooSlowError as exc:
            raise Failed(CONNECT_TIMEOUT, exc) from exc
        except trio.ClosedResourceError as exc:
            # The pool: the proxy's block was left while its server runs.
            raise Failed(CLOSED, exc) from exc
        raise Failed(ANSWER_TIMEOUT, trio.TooSlowError())

    async def _request(
        self,
        stack: AsyncExitStack,
        request: Request,
        origin: str,
        outgoing: OutgoingRequest,
        body: _PatientBody,
    ) -> ClientResponse:
        headers = outgoing.headers
        if binds_connection(headers):
            # Another client's request on this connection would be taken for one of this
            # client (RFC 4559 §6).
            headers = Headers([*headers.raw, (b"Connection", b"close")])
        response = await self.pool.request(
            outgoing.method,
            origin,
            target=outgoing.target,
            headers=headers,
            body=body.source,
            trailers=body.find_trailers(outgoing.headers),
            on_informational=partial(_inform, request),
        )
        return await stack.enter_async_context(response)

    async def _upgrade(
        self,
        stack: AsyncExitStack,
        request: Request,
        connection: ClientConnection,
        outgoing: OutgoingRequest,
        protocols: Sequence[str],
        body: _PatientBody,
    ) -> ClientResponse | UpgradedConnection:
        try:
            upgraded = await connection.upgrade(
                outgoing.target,
                *protocols,
                method=outgoing.method,
                headers=outgoing.headers,
                body=body.source,
                trailers=body.find_trailers(outgoing.headers),
                on_informational=partial(_inform, request),
            )
        except UpgradeRefused as refused:
            # The connection stays open, and with it the body of the refusal.
            return refused.response
        return await stack.enter_async_context(upgraded)

    async def _connect(self, origin: str) -> ClientConnection:
        # Not one of the pool: what has carried an offer is not used again
        # (CVE-2026-2833), and a tunnel may last for days.
        if self._context is None and origin.lower().startswith(("https", "wss")):
            self._context = self._options.get("ssl_context") or _make_context()
        options = self._options.copy()
        if self._context is not None:
            options["ssl_context"] = self._context
        with fail_after(self.rules.connect_timeout):
            return await open_connection(origin, **options)

    ################################################################
    # An ordinary answer
    ################################################################

    async def _pass_on(
        self, request: Request, response: ClientResponse
    ) -> Response | None:
        head = self._make_head(request, response)
        if head.status == _UPGRADE_REQUIRED and not _names_protocol(head.headers):
            # The upstream breaks RFC 9110 §15.5.22; respond() would, too.
            return await self._pass_on_426(request, response, head)
        if "content-length" in head.headers and await self._read_received(response):
            # One send, where a respond() block takes two or three.
            body = b"" if head.status in _NO_CONTENT_FOLLOWS else response.body
            return Response(head.status, body, head.headers, reason=head.reason or None)
        try:
            async with request.respond(
                head.status, head.headers, reason=head.reason or None
            ) as answer:
                if head.status not in _NO_CONTENT_FOLLOWS:
                    seconds = self.rules.tunnels.idle_timeout
                    await _copy_content(response, answer, seconds)
        except _UpstreamCut as exc:
            self.counters.failures += 1
            _log.info("%r: the upstream broke off: %r", request, exc.__cause__)
        return None

    async def _read_received(self, response: ClientResponse) -> bool:
        try:
            return await response.read_received()
        except BodyError as exc:
            # Only where modify_response has added the length.  To the server it would
            # be the error of the client.
            raise Failed(name_failure(exc), exc) from exc

    def _make_head(self, request: Request, response: ClientResponse) -> ResponseHead:
        head = response.head
        fields = response_fields(head.status, head.headers)
        if self.rules.via is not None:
            via = f"{head.http_version} {self.rules.via}"
            fields.append((b"Via", via.encode("ascii")))
        head = head._replace(headers=Headers(fields))
        if self.rules.modify_response is not None:
            head = self.rules.modify_response(request, head)
        return head

    async def _pass_on_426(
        self, request: Request, response: ClientResponse, head: ResponseHead
    ) -> Response | None:
        # It is read first, so the client waits, as it does for the head of an answer.
        async with request.cancelled_on_disconnect():
            try:
                with fail_after(self.rules.response_timeout):
                    await response.read()
            except BodyError as exc:
                raise Failed(name_failure(exc), exc) from exc
            except trio.TooSlowError as exc:
                raise Failed(ANSWER_TIMEOUT, exc) from exc
            response.head = head
            return Response.relayed(response)
        return None

    ################################################################
    # A switch
    ################################################################

    async def _switch(self, request: Request, upgraded: UpgradedConnection) -> None:
        head, upstream, early = upgraded
        del early  # It is first in the stream.
        # A list may have empty elements (RFC 9110 §5.6.1.2).
        protocol = head.headers["upgrade"].strip(" \t,")
        if protocol not in request.upgrades:
            # Several layers, each of them offered.  A server names the one that it was
            # asked to speak; we cannot speak for it.
            defect = IllegalSwitch("it names several protocols")
            raise Failed(name_failure(defect), defect)
        client, _ = await request.accept_upgrade(
            protocol,
            headers=fields_of_101(head.headers, self.rules.more_fields),
            reason=head.reason or "Switching Protocols",
        )
        options = self.rules.tunnels
        if not await run_tunnel(
            request, protocol, client, upstream, options, self.counters
        ):
            await upstream.reset()
            await client.reset()


async def _inform(request: Request, head: ResponseHead) -> None:
    fields = response_fields(head.status, head.headers)
    await request.send_informational(head.status, fields)


async def _copy_content(
    response: ClientResponse, answer: StreamedResponse, idle_timeout: float | None
) -> None:
    patience = math.inf if idle_timeout is None else idle_timeout
    try:
        # One scope for the whole answer: one for each piece would cost more.
        with trio.CancelScope() as waiting:
            waiting.deadline = trio.current_time() + patience
            async for chunk in response.stream():
                # The time of a slow client does not count.
                waiting.deadline = math.inf
                await answer.send(chunk)
                waiting.deadline = trio.current_time() + patience
    except BodyError as exc:
        raise _UpstreamCut from exc
    if waiting.cancelled_caught:
        raise _UpstreamCut from trio.TooSlowError()
    if response.trailers and "content-length" not in answer.headers:
        answer.trailers = trailer_fields(response.trailers)


def _make_context() -> ssl.SSLContext:
    import ssl

    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def fail_after(seconds: float | None) -> AbstractContextManager[object]:
    """Return a scope with a time limit; None disables it."""
    return nullcontext() if seconds is None else trio.fail_after(seconds)


def _names_protocol(headers: Headers) -> bool:
    # As Response sees it: an Upgrade field of malformed elements names none.
    names = headers.get("upgrade", "").split(",")
    return any(_is_protocol(name.strip(" \t")) for name in names)


@final
class _PatientBody(AsyncIterator[bytes]):
    # The client's body, and the time that the upstream gets.  Only the upstream's time
    # counts: while the client is waited for, the server's own limits hold.

    def __init__(self, request: Request, seconds: float | None) -> None:
        self._request = request
        self._seconds = math.inf if seconds is None else seconds
        self._pieces = request.stream()
        self.scope = trio.CancelScope()
        self._start()

    def _start(self) -> None:
        self.scope.deadline = trio.current_time() + self._seconds

    @property
    def source(self) -> AsyncIterator[bytes]:
        """The body to send; for a request without one it is known to be empty."""
        return self if self._request.has_body else self._pieces

    def find_trailers(self, headers: Headers) -> Callable[[], list[Field]] | tuple[()]:
        """Return what gives the trailers that go on, once the body was read."""
        if not self._request.has_body or "content-length" in headers:
            return ()
        return lambda: trailer_fields(self._request.trailers)

    async def __anext__(self) -> bytes:
        self.scope.deadline = math.inf
        try:
            return await anext(self._pieces)
        finally:
            self._start()
