# The header section of a client's request, checked before anything is sent.
from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, cast, final

from .._body import BodyStream
from .._http.framing import parse_given_length
from .._http.headers import HeadersLike, field_values
from .._http.messages import ResponseHead
from .._http.switching import (
    connect_fields,
    expects_anything,
    find_switch_defect,
    offer_fields,
)
from .._http.targets import (
    check_authority,
    parse_connect_authority,
    parse_target,
    write_target,
)
from .._http.tokens import Offers, check_token
from .._http.trailers import trailer_fields
from .._util import name_kind
from .urls import is_visible_ascii
from .wording import mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._http.headers import Field
    from .urls import Endpoint

RequestBody: TypeAlias = bytes | AsyncIterable[bytes | bytearray | memoryview]
# A function is called when the body was sent: a checksum is not known before.
TrailersLike: TypeAlias = HeadersLike | Callable[[], HeadersLike]
# Gets the head of each informational response but 100 and 101.
OnInformational: TypeAlias = Callable[[ResponseHead], Awaitable[object]]

_METHODS_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})


@final
class Offer:
    """An offer to switch, checked: make it before anything is opened.

    Raises:
        TypeError: No protocol is given, or something that is no str.
        ValueError: A protocol or a field is malformed, or a field is given that the
            library writes.
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
        for protocol in protocols:
            if isinstance(cast("object", protocol), list | tuple | set | frozenset):
                raise TypeError(
                    "each protocol is an argument of its own, a str such as 'websocket', "
                    f"not {type(protocol).__name__}"
                )
        self.fields: list[Field] = offer_fields(protocols, headers)
        self._protocols = Offers(protocols)
        self._tolerant = tolerate_missing_connection

    def find_defect(self, head: ResponseHead) -> str | None:
        """Return the reason why a 101 is an illegal answer, None if it is legal."""
        return find_switch_defect(
            self._protocols,
            head.http_version,
            head.headers,
            tolerate_missing_connection=self._tolerant,
        )


@final
class CheckedRequest:
    """A request whose every part is checked: make it before anything is opened.

    After this no part of the caller's can make the request fail, except the chunks of a
    body that is an iterable.

    Args:
        method: The method.
        target: The target; in absolute form it is for a proxy (RFC 9112 §3.2.2), and is
            written with http for ws, https for wss.
        given: The user's fields, which replace Host and credentials.
        body: The request's body.
        endpoint: The host that the connection is opened to.
        offer: The offer that the request carries, if it carries one.
        trailers: Fields to send after the body, which must then be chunked.
        on_informational: Gets the head of each 1xx but 100 and 101; None if it is not
            wanted.

    Raises:
        TypeError: A part has a type that cannot be sent.
        ValueError: A part is malformed, or the parts do not go together.
    """

    __slots__ = (
        "_trailers",
        "body",
        "endpoint",
        "fields",
        "method",
        "offer",
        "on_informational",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        given: Sequence[Field],
        body: RequestBody,
        endpoint: Endpoint,
        offer: Offer | None = None,
        *,
        trailers: TrailersLike = (),
        on_informational: OnInformational | None = None,
    ) -> None:
        _check_method(method)
        if method == "CONNECT" and offer is not None:
            raise ValueError(
                "CONNECT asks for a tunnel and cannot offer anything else: open_tunnel()"
            )
        _check_target(target)
        target = write_target(target)
        self.method: str = method
        self.target: str = target
        # A body that is known to be empty is none: no framing, no end to be sent.
        self.body: RequestBody = b"" if _find_length(body) == 0 else body
        self.offer: Offer | None = offer
        self.fields: list[Field] = complete_fields(
            method, target, given, body, endpoint
        )
        self.endpoint: Endpoint = endpoint
        self._trailers: Sequence[Field] | Callable[[], HeadersLike] = (
            trailers if callable(trailers) else trailer_fields(trailers)
        )
        if self._trailers and not field_values(self.fields, b"transfer-encoding"):
            raise ValueError(
                "trailers follow only a chunked body: an async iterable without a "
                "Content-Length"
            )
        if on_informational is not None and not callable(on_informational):
            kind = name_kind(on_informational)
            raise TypeError(f"on_informational must be an async function, not {kind}")
        self.on_informational: OnInformational | None = on_informational

    def get_trailers(self) -> Sequence[Field]:
        """Return the trailer fields; called once, after the body was sent.

        Raises:
            TypeError: As :func:`trailer_fields` does, for the result of a function.
            ValueError: As :func:`trailer_fields` does, for the result of a function.
        """
        trailers = self._trailers
        return trailer_fields(trailers()) if callable(trailers) else trailers


def ask_for_tunnel(
    authority: str,
    headers: HeadersLike,
    endpoint: Endpoint,
    on_informational: OnInformational | None = None,
) -> CheckedRequest:
    """Return the CONNECT to the proxy ``endpoint`` (RFC 9110 §9.3.6).

    Raises:
        TypeError: The authority is not a str, or the headers are no fields.
        ValueError: The authority is not ``host:port``, or a field is malformed or not
            allowed in a CONNECT.
    """
    if not isinstance(cast("object", authority), str):
        kind = type(authority).__name__
        raise TypeError(
            f"the authority of a tunnel must be a str host:port, not {kind}"
        )
    try:
        parse_connect_authority(authority)
    except ValueError as exc:
        raise ValueError(
            "the authority of a tunnel must be host:port with a port from 1 to 65535, "
            f"not '{mask(authority)}'"
        ) from exc
    fields = connect_fields(authority, headers)
    return CheckedRequest(
        "CONNECT", authority, fields, b"", endpoint, on_informational=on_informational
    )


def _check_method(method: str) -> None:
    if not isinstance(cast("object", method), str):
        raise TypeError(f"a method must be a str, not {type(method).__name__}")
    try:
        check_token(method)
    except ValueError as exc:
        raise ValueError(f"a method must be a token such as GET: {exc}") from None


def _check_target(target: str) -> None:
    if not isinstance(cast("object", target), str):
        raise TypeError(f"a target must be a str, not {type(target).__name__}")
    if not target or not is_visible_ascii(target):
        raise ValueError(
            "a target must be visible ASCII such as /chat?room=1, its other characters "
            f"as %-escapes, not '{mask(target)}'"
        )


def complete_fields(
    method: str,
    target: str,
    given: Sequence[Field],
    body: RequestBody,
    endpoint: Endpoint,
) -> list[Field]:
    """Return all fields of a request: Host, the given ones, credentials, framing.

    Args:
        method: The method.
        target: The target; in absolute form it is for a proxy (RFC 9112 §3.2.2).
        given: The user's fields, which replace Host and credentials.
        body: The request's body.
        endpoint: The host that the connection was opened to.

    Raises:
        TypeError: The body has a type that cannot be sent.
        ValueError: Fields, target and body do not go together.
    """
    fields = [*given]
    # The usual request has none of the fields that matter here.
    names = {name.lower() for name, _ in given}
    framing = _frame(method, fields, body)
    origin = None if method == "CONNECT" else _find_origin(target)
    if b"host" in names:
        _check_hosts(field_values(fields, b"host"))
    else:
        # RFC 9112 §3.2: the target's authority, if the target has one.
        fields.insert(0, (b"Host", origin or endpoint.host_field))
    to_proxy = origin is not None or method == "CONNECT"
    name = b"Proxy-Authorization" if to_proxy else b"Authorization"
    if endpoint.credentials and name.lower() not in names:
        fields.append((name, endpoint.credentials.basic()))
    if b"expect" in names and _find_length(body) == 0 and expects_anything(fields):
        if not isinstance(body, BodyStream):
            raise ValueError("Expect: there is no body that could wait for a 100")
        # Only the stream knows that it is empty; its user may have forwarded the field.
        fields = [pair for pair in fields if pair[0].lower() != b"expect"]
    return [*fields, *framing]


def _find_origin(target: str) -> bytes | None:
    # Return the authority of a target in absolute form.
    if target.startswith("/") or "://" not in target or not target.isascii():
        return None
    try:
        authority = parse_target("GET", target).authority
    except ValueError as exc:
        raise ValueError(
            f"a target in absolute form must be http://host[:port]/path: {exc}"
        ) from None
    return str(authority).encode("ascii")


def _check_hosts(hosts: Sequence[bytes]) -> None:
    if len(hosts) > 1:
        raise ValueError(f"only one Host field can be sent, not {len(hosts)}")
    for host in hosts:
        try:
            # The server's own check: it would answer 400 (RFC 9112 §3.2).
            check_authority(host)
        except ValueError as exc:
            shown = mask(host.decode("latin-1"))
            raise ValueError(
                f"Host must be host[:port], not '{shown}': {exc}"
            ) from None


def _frame(method: str, fields: Sequence[Field], body: RequestBody) -> list[Field]:
    # Return the field, if any, that frames a request's body (RFC 9112 §6).
    # bytes first: isinstance() is slow with abstract classes.
    if not isinstance(body, bytes) and not isinstance(
        cast("object", body), AsyncIterable
    ):
        raise TypeError(
            f"a body of {type(body).__name__}: it must be bytes, or an async iterable of "
            "bytes"
        )
    length = _find_length(body)
    declared = field_values(fields, b"content-length")
    if declared:
        if isinstance(body, bytes):
            raise ValueError("Content-Length is written by the library: body is bytes")
        stated = parse_given_length(declared)
        if length not in (None, stated):
            raise ValueError(
                f"Content-Length is {stated}, but {length} bytes of the body are left"
            )
        return []
    if length is None:
        return [(b"Transfer-Encoding", b"chunked")]
    # RFC 9110 §8.6: if the method expects a body, an empty one has a length, too.
    if length or method in _METHODS_WITH_CONTENT:
        return [(b"Content-Length", b"%d" % length)]
    return []


def _find_length(body: RequestBody) -> int | None:
    # Return the length of a body, None if it is unknown.
    if isinstance(body, bytes):
        return len(body)
    return body.length if isinstance(body, BodyStream) else None
