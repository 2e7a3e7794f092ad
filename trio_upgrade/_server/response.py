# What an app returns: plain values and their checks; and what the server says by itself.
from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, cast, final

from .._errors import BodyError, MalformedMessage, NotOffered, Unavailable
from .._http.headers import Field, HeadersLike, encode_fields, field_values
from .._http.messages import SWITCHING_PROTOCOLS, check_reason, standard_reason
from .._http.switching import advertise, switch_fields, tunnel_fields
from .._http.tokens import parse_protocols
from .._util import public

if TYPE_CHECKING:
    from .._streams.upgraded import UpgradedStream
    from .request import Request

_RESET_CONTENT, _UPGRADE_REQUIRED = 205, 426
_LAST_INFORMATIONAL = 199
_LAST_STATUS = 999
_RESPONSE_FORBIDDEN = frozenset({b"transfer-encoding"})
TEXT = {"Content-Type": "text/plain; charset=utf-8"}

UpgradeHandler: TypeAlias = Callable[
    ["Request", "UpgradedStream", bytes], Awaitable[object]
]
"""Called after a switch with the request, the stream, and a snapshot of the bytes that
are first in it."""


@public
@final
class Response:
    """An ordinary answer; to a request with an offer it is a refusal.

    Length and transfer coding are written by the library. A Connection option of the
    app's is kept (``close`` closes), and an Upgrade field, which advertises protocols,
    gets the option it needs.

    Args:
        status: 200 to 999.
        body: Bytes, str (sent as UTF-8) or an async iterable of bytes, which is sent as
            it comes and closed afterwards.
        headers: Pairs or a mapping.
        reason: The reason phrase; None means the standard one.

    Raises:
        TypeError: The body is of no such type.
        ValueError: The status is informational, a 426 lacks its Upgrade field (RFC 9110
            §15.5.22), a 205 has content (§15.3.6), a field or the reason is malformed,
            or Transfer-Encoding is given.
    """

    __slots__ = ("body", "fields", "names", "reason", "status")

    def __init__(
        self,
        status: int,
        body: bytes | bytearray | memoryview | str | AsyncIterable[bytes] = b"",
        headers: HeadersLike = (),
        *,
        reason: str | None = None,
    ) -> None:
        if not _LAST_INFORMATIONAL < status <= _LAST_STATUS:
            raise ValueError(f"not the status of a final response: {status}")
        fields = encode_fields(headers, forbidden=_RESPONSE_FORBIDDEN)
        names = {name.lower() for name, _ in fields}
        if b"upgrade" in names:
            fields = advertise(fields)
            names.add(b"connection")
        if status == _UPGRADE_REQUIRED and not parse_protocols(
            field_values(fields, b"upgrade")
        ):
            raise ValueError("a 426 needs an Upgrade field that names a protocol")
        if isinstance(body, str):
            body = body.encode()
        elif isinstance(body, bytearray | memoryview):
            body = bytes(body)
        elif not isinstance(body, bytes) and not isinstance(
            cast("object", body), AsyncIterable
        ):
            raise TypeError(f"a body of {type(body).__name__}")
        if status == _RESET_CONTENT and body != b"":
            raise ValueError("a 205 has no content")
        self.status: int = int(status)
        self.body: bytes | AsyncIterable[bytes] = body
        self.fields: tuple[Field, ...] = fields
        self.names: set[bytes] = names
        self.reason: str = (
            standard_reason(status) if reason is None else check_reason(reason)
        )

    async def aclose(self) -> None:
        """Close an iterable body that can be closed; the server does it.

        Left to itself, a generator that was not run to its end would live until the
        collector finds it.
        """
        aclose = getattr(self.body, "aclose", None)
        if aclose is not None:
            await aclose()

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.reason}>"


@public
@final
class Upgrade:
    """The answer that switches the connection to another protocol.

    The library sends the 101 and awaits ``handler(request, stream, head)``; the stream
    is closed when that returns and reset when it raises. ``head`` is a snapshot of the
    bytes that are first in the stream. If the request does not offer the protocol, the
    client gets a 426 that names it.

    Immutable, so what was checked is what is sent.

    Args:
        protocol: ``name`` or ``name/version``, spelled as the 101 is to spell it.
        handler: The task of the connection from then on.
        headers: Further fields for the 101.
        reason: Its reason phrase.

    Raises:
        TypeError: The handler is not callable.
        ValueError: The protocol, a field or the reason is malformed, or a field is
            hop-by-hop or about framing.
    """

    __slots__ = ("_fields", "_handler", "_protocol", "_reason")

    def __init__(
        self,
        protocol: str,
        handler: UpgradeHandler,
        headers: HeadersLike = (),
        *,
        reason: str = SWITCHING_PROTOCOLS,
    ) -> None:
        self._fields = switch_fields(protocol, headers)
        self._protocol = protocol
        self._handler = check_handler(handler)
        self._reason = check_reason(reason)

    @property
    def protocol(self) -> str:
        """The protocol, as the 101 spells it."""
        return self._protocol

    @property
    def handler(self) -> UpgradeHandler:
        """The task of the connection after the switch."""
        return self._handler

    @property
    def reason(self) -> str:
        """The reason phrase of the 101."""
        return self._reason

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields of the 101."""
        return self._fields

    def __repr__(self) -> str:
        return f"Upgrade({self._protocol!r}, {self._handler!r})"


@public
@final
class Tunnel:
    """The answer that makes a CONNECT a tunnel (RFC 9110 §9.3.6).

    The library sends the 200 and awaits ``handler(request, stream, head)``, as after an
    :class:`Upgrade`. In answer to any other method it is a bug, and a 500. Immutable.

    Args:
        handler: The task of the connection from then on.
        headers: Fields for the 200.

    Raises:
        TypeError: The handler is not callable.
        ValueError: A field is malformed, hop-by-hop or about framing.
    """

    __slots__ = ("_fields", "_handler")

    def __init__(self, handler: UpgradeHandler, headers: HeadersLike = ()) -> None:
        self._fields = tunnel_fields(headers)
        self._handler = check_handler(handler)

    @property
    def handler(self) -> UpgradeHandler:
        """The task of the connection after the switch."""
        return self._handler

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the 200 that the app gave."""
        return self._fields

    def __repr__(self) -> str:
        return f"Tunnel({self._handler!r})"


Answer: TypeAlias = Response | Upgrade | Tunnel | None
App: TypeAlias = Callable[["Request"], Awaitable[Answer]]
"""Called for each request; returns the answer, or None after a switch of its own."""


def check_handler(handler: UpgradeHandler) -> UpgradeHandler:
    """Return the handler itself.

    What cannot be one is refused where it is given, and not where it is called.

    Raises:
        TypeError: It cannot be called.
    """
    if not callable(handler):
        raise TypeError(f"the handler cannot be called: {handler!r}")
    return handler


def refuse(error: BaseException) -> Response:
    """Return the plain-text answer that tells a client what was wrong."""
    text = f"{error}\n"
    if isinstance(error, NotOffered):
        return Response(426, text, {**TEXT, "Upgrade": error.protocol})
    if isinstance(error, Unavailable):
        return Response(503, text, TEXT)
    assert isinstance(error, BodyError | MalformedMessage)
    return Response(error.status, text, TEXT)
