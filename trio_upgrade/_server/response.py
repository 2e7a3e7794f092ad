# The answers that an app returns, with their checks, and the server's own refusals.
from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast, final

from .._body import BodyStream
from .._errors import BodyError, MalformedMessage, NotOffered, Unavailable
from .._http.framing import parse_given_length
from .._http.headers import (
    NO_FIELDS,
    Field,
    Headers,
    HeadersLike,
    encode_fields,
    replace_fields,
)
from .._http.messages import (
    SWITCHING_PROTOCOLS,
    ResponseHead,
    check_reason,
    standard_reason,
)
from .._http.switching import advertise, switch_fields, tunnel_fields
from .._http.tokens import parse_protocols
from .._http.trailers import trailer_fields
from .._util import Frozen, name_kind, public

if TYPE_CHECKING:
    from .._streams.upgraded import UpgradedStream
    from .request import Request

_BAD_REQUEST = 400
_UPGRADE_REQUIRED = 426
# RFC 9110 §15.3.5, §15.3.6, §15.4.5: these responses have no content.
_NO_CONTENT, _RESET_CONTENT, _NOT_MODIFIED = 204, 205, 304
_WITHOUT_CONTENT = frozenset({_NO_CONTENT, _RESET_CONTENT, _NOT_MODIFIED})
_LAST_INFORMATIONAL = 199
_LAST_STATUS = 999
_RESPONSE_FORBIDDEN = frozenset({b"transfer-encoding"})
# Fields that are not relayed, although they are not hop-by-hop by their definition: the
# first two are between us and the next proxy (RFC 9110 §11.7), and the third announces
# trailers that are not relayed.
_NOT_RELAYED = frozenset(
    {b"proxy-authenticate", b"proxy-authentication-info", b"trailer"}
)
# Without a type a browser guesses, and would run a script in a text that repeats input.
_TEXT_TYPE = (b"Content-Type", b"text/plain; charset=utf-8")
# Shared by all responses without fields of the app; it never changes.
_TEXT_ONLY = Headers((_TEXT_TYPE,))
# Connection and Upgrade, which switch_fields() writes before those of the app.
_SWITCH_FIELDS = 2
# Bypasses the __setattr__ of immutable classes.
_set = object.__setattr__

UpgradeHandler: TypeAlias = Callable[
    ["Request", "UpgradedStream", bytes], Awaitable[object]
]
"""Called after a switch with the request, the stream, and a snapshot of the bytes that
are first in it; a handler that runs for long should ``del`` the snapshot."""


class Received(Protocol):
    """What :meth:`Response.relayed` uses of a ``ClientResponse``.

    The server half does not import the client half.
    """

    head: ResponseHead
    body: bytes
    truncated: bool

    def stream(self) -> AsyncIterable[bytes]:
        """Iterate over the body as it comes."""
        ...


@public
@final
class Response(Frozen):
    """An ordinary answer; to a request with an offer it is a refusal.

    The library writes length and transfer coding. A Connection option of the app is kept
    (``close`` closes the connection). An Upgrade field advertises protocols; the
    Connection option that it needs is added.

    Immutable, so it is sent as it was checked. :meth:`with_headers` makes another one.

    Args:
        status: 200 to 999.
        body: Bytes, str or an async iterable of bytes, which are sent as it yields them;
            it is closed afterwards, also if the client leaves while it waits: at a reset
            at once, after an end of the client's side when it has yielded nothing for
            ``Limits.linger`` seconds. A str is sent as UTF-8, as ``Content-Type:
            text/plain; charset=utf-8`` unless the headers have a Content-Type.
        headers: Pairs or a mapping. A Content-Length must be the body's. To a HEAD, a
            body that is left out may have one; so may a 304.
        reason: The reason phrase, sent as Latin-1; None means the standard one.
        trailers: Fields to send after an iterable body, or a function that returns them,
            called without arguments at the body's end. They are sent where the body is
            chunked, so not to HTTP/1.0 nor in answer to HEAD, and proxies may drop them.

    Attributes:
        status: As given.
        body: Bytes, or the async iterable. One that is known to be empty, such as
            ``request.stream()`` of a request without a body, is ``b""``.
        headers: All its fields but those that the library adds when it is sent: Date,
            framing, ``Connection: close``.
        reason: The reason phrase.

    Raises:
        TypeError: An argument has another type.
        ValueError: Trailers are given for a body that is no iterable, or that has a
            Content-Length; a trailer field is malformed, or is one of framing, routing
            or authentication (RFC 9110 §6.5.1); the status is informational, a 426 lacks
            its Upgrade field (RFC 9110 §15.5.22), a 204, 205 or 304 has content (§6.4.1,
            §15.3.6), a field or the reason is malformed, Content-Length is not one
            number or not the body's length, or is given for a 204 (§8.6), or
            Transfer-Encoding is given.
    """

    __slots__ = ("_trailers", "body", "headers", "reason", "status")

    status: int
    body: bytes | AsyncIterable[bytes]
    headers: Headers
    reason: str
    # Missing unless trailers were given: few responses have any, and each attribute that
    # is set takes time.
    _trailers: tuple[Field, ...] | Callable[[], HeadersLike]

    def __init__(
        self,
        status: int,
        body: bytes | bytearray | memoryview | str | AsyncIterable[bytes] = b"",
        headers: HeadersLike = (),
        *,
        reason: str | None = None,
        trailers: HeadersLike | Callable[[], HeadersLike] = (),
    ) -> None:
        if type(status) is not int:
            status = _check_status_type(status)
        if not _LAST_INFORMATIONAL < status <= _LAST_STATUS:
            raise ValueError(f"not the status of a final response: {status}")
        content = body if type(body) is bytes else _encode_body(body)
        if status in _WITHOUT_CONTENT and content != b"":
            raise ValueError(f"a {status} has no content")
        fields = encode_fields(headers, forbidden=_RESPONSE_FORBIDDEN)
        is_text = isinstance(body, str) and status not in _WITHOUT_CONTENT
        if fields:
            checked = _check_fields(status, content, fields, is_text=is_text)
        else:
            checked = _TEXT_ONLY if is_text else NO_FIELDS
        if status == _UPGRADE_REQUIRED and not parse_protocols(
            checked.lines(b"upgrade")
        ):
            raise ValueError("a 426 needs an Upgrade field that names a protocol")
        _set(self, "status", status)
        _set(self, "body", content)
        _set(self, "headers", checked)
        _set(
            self,
            "reason",
            standard_reason(status) if reason is None else check_reason(reason),
        )
        if trailers:
            if isinstance(body, bytes | bytearray | memoryview | str):
                raise ValueError("trailers need a body that is an async iterable")
            if checked.lines(b"content-length"):
                raise ValueError("trailers need a body without Content-Length")
            _set(
                self,
                "_trailers",
                trailers if callable(trailers) else trailer_fields(trailers),
            )

    def with_headers(self, headers: HeadersLike) -> Response:
        """Return a response with these fields instead of all of the same names.

        The other fields, the status, the body and the reason are the same. For a field
        that stands several times, give all its lines: this adds a second cookie::

            cookie = ("Set-Cookie", "b=2")
            response = response.with_headers([*response.headers.raw, cookie])

        Args:
            headers: Pairs or a mapping.

        Raises:
            TypeError: As for :class:`Response`.
            ValueError: As for :class:`Response`.
        """
        fields = replace_fields(self.headers.raw, headers)
        if _is_bare_426(self.status, self.headers):
            response = _make_relayed(self.status, self.body, fields, self.reason)
        else:
            response = Response(self.status, self.body, fields, reason=self.reason)
        given = getattr(self, "_trailers", None)
        if given is not None:
            if response.headers.lines(b"content-length"):
                raise ValueError("trailers need a body without Content-Length")
            _set(response, "_trailers", given)
        return response

    @classmethod
    def relayed(
        cls,
        response: Received,
        *,
        body: bytes | bytearray | memoryview | str | AsyncIterable[bytes] | None = None,
    ) -> Response:
        """Return the answer that passes on a response which our client received.

        For proxies and gateways; every :class:`ClientResponse` can be passed on::

            response = await upstream.request("GET", request.target)
            return Response.relayed(response)

        Its connection has to stay open until the answer was sent, unless the whole body
        has been read. Hop-by-hop fields and those that Connection names are left out
        (RFC 9110 §7.6.1), as are Proxy-Authenticate, Proxy-Authentication-Info and
        Trailer. A 426 keeps its Upgrade; one that came without is passed on without. A
        204, 205 or 304 has no content, whatever came with it, a 204 no Content-Length,
        and a 205 says 0. The reason is the one that came, a standard one if it was empty.

        Args:
            response: The response, read or not.
            body: A body instead of its own, as for :class:`Response`; Content-Length is
                then not relayed. None means its own: what :meth:`ClientResponse.read`
                has read, or else the bytes as they come.

        Raises:
            TypeError: It is no :class:`ClientResponse`: informational responses and those
                that switch have only a head, and are no answers.
            ValueError: The body was cut (:attr:`ClientResponse.truncated`).
        """
        head = getattr(response, "head", None)
        if not isinstance(head, ResponseHead):
            raise TypeError(
                "only a final response can be relayed, a ClientResponse, not "
                f"{name_kind(response)}"
            )
        status, dropped = head.status, _NOT_RELAYED
        if status in _WITHOUT_CONTENT:
            content: object = b""
            if status != _NOT_MODIFIED:
                dropped |= {b"content-length"}
        elif body is not None:
            content = body
            dropped |= {b"content-length"}
        elif response.truncated:
            raise ValueError(
                "the body of this refusal was cut: open_connection() and its upgrade() "
                "leave it unread, to be relayed whole; or give body="
            )
        else:
            content = response.body or response.stream()
        fields = [
            pair for pair in head.headers.end_to_end() if pair[0].lower() not in dropped
        ]
        if status == _UPGRADE_REQUIRED:
            protocols = head.headers.lines(b"upgrade")
            if parse_protocols(protocols):
                fields += [(b"Upgrade", line) for line in protocols]
        return _make_relayed(status, cast("bytes", content), fields, head.reason)

    async def aclose(self) -> None:
        """Close an iterable body that can be closed; the server does it.

        Otherwise a generator that was not run to its end would live until the garbage
        collector finds it.
        """
        aclose = getattr(self.body, "aclose", None)
        if aclose is not None:
            await aclose()

    def __repr__(self) -> str:
        # Escaped: a reason that was relayed may have controls for a terminal (F14).
        return f"<Response {self.status} {ascii(self.reason)[1:-1]}>"


@public
@final
class Upgrade(Frozen):
    """The answer that switches the connection to another protocol.

    The library sends the 101 and awaits ``handler(request, stream, head)``. The stream is
    ended in stages when the handler returns. It is reset when the handler raises or is
    cancelled, unless :meth:`UpgradedStream.send_eof` had returned. ``head`` is a snapshot
    of the bytes that are first in the stream. If the request does not offer the protocol,
    the client gets a 426 that names it.

    Immutable, so it is sent as it was checked. :meth:`with_headers` makes another one.

    Args:
        protocol: ``name`` or ``name/version``, in the spelling for the 101.
        handler: Called after the switch, in the task of the connection.
        headers: Further fields for the 101.
        reason: Its reason phrase.

    Attributes:
        protocol: As given.
        handler: As given.
        reason: As given.

    Raises:
        TypeError: The handler cannot be called, or another argument has another type.
        ValueError: The protocol, a field or the reason is malformed, or a field is
            hop-by-hop or about framing.
    """

    __slots__ = ("_fields", "handler", "protocol", "reason")

    protocol: str
    handler: UpgradeHandler
    reason: str
    # All fields of the 101.
    _fields: tuple[Field, ...]

    def __init__(
        self,
        protocol: str,
        handler: UpgradeHandler,
        headers: HeadersLike = (),
        *,
        reason: str = SWITCHING_PROTOCOLS,
    ) -> None:
        _set(self, "_fields", switch_fields(protocol, headers))
        _set(self, "protocol", protocol)
        _set(self, "handler", check_handler(handler))
        _set(self, "reason", check_reason(reason))

    @property
    def headers(self) -> Headers:
        """The further fields of the 101, as given: without Connection and Upgrade."""
        return Headers(self._fields[_SWITCH_FIELDS:])

    def with_headers(self, headers: HeadersLike) -> Upgrade:
        """Return the same answer with these fields instead of all of the same names.

        See :meth:`Response.with_headers`.

        Raises:
            TypeError: As for :class:`Upgrade`.
            ValueError: As for :class:`Upgrade`.
        """
        fields = replace_fields(self._fields[_SWITCH_FIELDS:], headers)
        return Upgrade(self.protocol, self.handler, fields, reason=self.reason)

    def __repr__(self) -> str:
        return f"Upgrade({self.protocol!r}, {self.handler!r})"


@public
@final
class Tunnel(Frozen):
    """The answer that makes a CONNECT a tunnel (RFC 9110 §9.3.6).

    The library sends the 200 and awaits ``handler(request, stream, head)``, as after an
    :class:`Upgrade`. In answer to any other method it is a bug, and a 500. Immutable.

    Args:
        handler: Called after the switch, in the task of the connection.
        headers: Fields for the 200.

    Attributes:
        handler: As given.

    Raises:
        TypeError: The handler cannot be called, or the headers are no fields.
        ValueError: A field is malformed, hop-by-hop or about framing.
    """

    __slots__ = ("_fields", "handler")

    handler: UpgradeHandler
    _fields: tuple[Field, ...]

    def __init__(self, handler: UpgradeHandler, headers: HeadersLike = ()) -> None:
        _set(self, "_fields", tunnel_fields(headers))
        _set(self, "handler", check_handler(handler))

    @property
    def headers(self) -> Headers:
        """The fields of the 200, as given."""
        return Headers(self._fields)

    def with_headers(self, headers: HeadersLike) -> Tunnel:
        """Return the same answer with these fields instead of all of the same names.

        See :meth:`Response.with_headers`.

        Raises:
            TypeError: As for :class:`Tunnel`.
            ValueError: As for :class:`Tunnel`.
        """
        return Tunnel(self.handler, replace_fields(self._fields, headers))

    def __repr__(self) -> str:
        return f"Tunnel({self.handler!r})"


Answer: TypeAlias = Response | Upgrade | Tunnel | None
App: TypeAlias = Callable[["Request"], Awaitable[Answer]]
"""Called for each request; returns the answer, or None if it has answered itself."""


def check_handler(handler: UpgradeHandler) -> UpgradeHandler:
    """Return the handler itself.

    The check is made when the handler is given, so that the error does not come only
    when it is called.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(handler):
        raise TypeError(
            "the handler cannot be called: it must be an async function, await "
            f"handler(request, stream, head), not {name_kind(handler)}"
        )
    return handler


def find_fields(answer: Upgrade | Tunnel) -> tuple[Field, ...]:
    """Return all fields of the 101, or of the 200 to CONNECT."""
    return answer._fields  # pyright: ignore[reportPrivateUsage]


def find_trailers(response: Response) -> tuple[Field, ...]:
    """Return the trailer fields of a response whose body has ended.

    Raises:
        TypeError: A function of the app has returned no fields.
        ValueError: It has returned a field that is malformed or no trailer field.
    """
    given: tuple[Field, ...] | Callable[[], HeadersLike]
    given = getattr(response, "_trailers", ())
    return trailer_fields(given()) if callable(given) else given


def _is_bare_426(status: int, headers: Headers) -> bool:
    # Only a server that breaks RFC 9110 §15.5.22 sends one, which is then relayed.
    return status == _UPGRADE_REQUIRED and not headers.lines(b"upgrade")


def _make_relayed(
    status: int,
    body: bytes | AsyncIterable[bytes],
    fields: Sequence[Field],
    reason: str,
) -> Response:
    # An empty reason breaks clients that use llhttp.
    reason = reason or standard_reason(status)
    if not _is_bare_426(status, Headers(fields)):
        return Response(status, body, fields, reason=reason)
    # Response() refuses it, so that no app forgets the field; nothing else differs.
    made = Response(_BAD_REQUEST, body, fields, reason=reason)
    _set(made, "status", status)
    return made


def _check_status_type(status: object) -> int:
    # bool is an int: Response(True) would be a status of 1.
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(
            f"a status must be an int such as 200, not {name_kind(status)}: "
            "Response(status, body, headers)"
        )
    return int(status)


def _encode_body(body: object) -> bytes | AsyncIterable[bytes]:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(cast("bytes", body))
    if isinstance(body, BodyStream):
        # So a response to HEAD, or a 304, can be relayed with its stream.
        return b"" if body.length == 0 else body
    if isinstance(body, AsyncIterable):
        return cast("AsyncIterable[bytes]", body)
    raise TypeError(
        "a body must be bytes, str or an async iterable of bytes, "
        f"not {name_kind(body)}"
    )


def _check_fields(
    status: int,
    body: bytes | AsyncIterable[bytes],
    fields: tuple[Field, ...],
    *,
    is_text: bool,
) -> Headers:
    # The names are parsed once, here, and looked up again when the response is sent.
    headers = Headers(fields)
    if is_text and not headers.lines(b"content-type"):
        headers = Headers((_TEXT_TYPE, *fields))
    if headers.lines(b"upgrade"):
        headers = Headers(advertise(headers.raw))
    lengths = headers.lines(b"content-length")
    if lengths:
        length = parse_given_length(lengths)
        if status == _NO_CONTENT:
            raise ValueError("a 204 has no Content-Length")
        if status == _RESET_CONTENT and length:
            raise ValueError("the Content-Length of a 205 is 0")
        # Without bytes only the method of the request says whether the length is wrong.
        if body and isinstance(body, bytes) and length != len(body):
            raise ValueError(
                f"Content-Length is not the length of the body: {length}, "
                f"not {len(body)}"
            )
    return headers


def refuse(error: BaseException) -> Response:
    """Return the plain-text answer that tells a client what was wrong."""
    text = f"{error}\n"
    if isinstance(error, NotOffered):
        return Response(426, text, {"Upgrade": error.protocol})
    if isinstance(error, Unavailable):
        return Response(503, text)
    assert isinstance(error, BodyError | MalformedMessage)
    return Response(error.status, text)
