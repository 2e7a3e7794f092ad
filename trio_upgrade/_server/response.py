# The answers that an app returns, with their checks, and the server's own refusals.
from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, cast, final

from .._errors import BodyError, MalformedMessage, NotOffered, Unavailable
from .._http.headers import Field, HeadersLike, encode_fields, field_values
from .._http.messages import SWITCHING_PROTOCOLS, check_reason, standard_reason
from .._http.switching import advertise, switch_fields, tunnel_fields
from .._http.tokens import parse_protocols
from .._util import Frozen, public

if TYPE_CHECKING:
    from .._streams.upgraded import UpgradedStream
    from .request import Request

_RESET_CONTENT, _UPGRADE_REQUIRED = 205, 426
_LAST_INFORMATIONAL = 199
_LAST_STATUS = 999
_RESPONSE_FORBIDDEN = frozenset({b"transfer-encoding"})
# Bypasses the __setattr__ of immutable classes.
_set = object.__setattr__
TEXT = {"Content-Type": "text/plain; charset=utf-8"}

UpgradeHandler: TypeAlias = Callable[
    ["Request", "UpgradedStream", bytes], Awaitable[object]
]
"""Called after a switch with the request, the stream, and a snapshot of the bytes that
are first in it; a handler that runs for long should ``del`` the snapshot."""


@public
@final
class Response:
    """An ordinary answer; to a request with an offer it is a refusal.

    The library writes length and transfer coding. A Connection option of the app is kept
    (``close`` closes the connection). An Upgrade field advertises protocols; the
    Connection option that it needs is added.

    Args:
        status: 200 to 999.
        body: Bytes, str (sent as UTF-8) or an async iterable of bytes, which are sent
            as it yields them; it is closed afterwards.
        headers: Pairs or a mapping.
        reason: The reason phrase, sent as Latin-1; None means the standard one.

    Raises:
        TypeError: The body is of another type.
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
    closed when the handler returns and reset when it raises. ``head`` is a snapshot of
    the bytes that are first in the stream. If the request does not offer the protocol,
    the client gets a 426 that names it.

    Immutable, so the fields that were checked are the fields that are sent.

    Args:
        protocol: ``name`` or ``name/version``, in the spelling for the 101.
        handler: Called after the switch, in the task of the connection.
        headers: Further fields for the 101.
        reason: Its reason phrase.

    Attributes:
        protocol: As given.
        handler: As given.
        fields: All fields of the 101.
        reason: As given.

    Raises:
        TypeError: The handler is not callable.
        ValueError: The protocol, a field or the reason is malformed, or a field is
            hop-by-hop or about framing.
    """

    __slots__ = ("fields", "handler", "protocol", "reason")

    protocol: str
    handler: UpgradeHandler
    fields: tuple[Field, ...]
    reason: str

    def __init__(
        self,
        protocol: str,
        handler: UpgradeHandler,
        headers: HeadersLike = (),
        *,
        reason: str = SWITCHING_PROTOCOLS,
    ) -> None:
        _set(self, "fields", switch_fields(protocol, headers))
        _set(self, "protocol", protocol)
        _set(self, "handler", check_handler(handler))
        _set(self, "reason", check_reason(reason))

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
        fields: The fields of the 200 that were given.

    Raises:
        TypeError: The handler is not callable.
        ValueError: A field is malformed, hop-by-hop or about framing.
    """

    __slots__ = ("fields", "handler")

    handler: UpgradeHandler
    fields: tuple[Field, ...]

    def __init__(self, handler: UpgradeHandler, headers: HeadersLike = ()) -> None:
        _set(self, "fields", tunnel_fields(headers))
        _set(self, "handler", check_handler(handler))

    def __repr__(self) -> str:
        return f"Tunnel({self.handler!r})"


Answer: TypeAlias = Response | Upgrade | Tunnel | None
App: TypeAlias = Callable[["Request"], Awaitable[Answer]]
"""Called for each request; returns the answer, or None if it has switched itself."""


def check_handler(handler: UpgradeHandler) -> UpgradeHandler:
    """Return the handler itself.

    The check is made when the handler is given, so that the error does not come only
    when it is called.

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
