# The header section of a client's request, checked before anything is sent.
from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, TypeAlias, cast, final

from .._http.headers import field_values
from .._http.switching import expects_anything, find_switch_defect, offer_fields
from .._http.targets import parse_target
from .._http.tokens import Offers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._http.headers import Field, HeadersLike
    from .._http.messages import ResponseHead
    from .urls import Endpoint

RequestBody: TypeAlias = bytes | AsyncIterable[bytes | bytearray | memoryview]

_METHODS_WITH_CONTENT = frozenset({"POST", "PUT", "PATCH"})


@final
class Offer:
    """An offer to switch, checked: make it before anything is opened.

    Raises:
        TypeError: No protocol is given.
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
    framing = _frame(method, fields, body)
    origin = None if method == "CONNECT" else _find_origin(target)
    if not field_values(fields, b"host"):
        # RFC 9112 §3.2: the target's authority, if the target has one.
        fields.insert(0, (b"Host", origin or endpoint.host_field))
    to_proxy = origin is not None or method == "CONNECT"
    name = b"Proxy-Authorization" if to_proxy else b"Authorization"
    if endpoint.credentials and not field_values(fields, name.lower()):
        fields.append((name, endpoint.credentials.basic()))
    if not body and expects_anything(fields):
        raise ValueError("Expect: there is no body that could wait for a 100")
    return [*fields, *framing]


def _find_origin(target: str) -> bytes | None:
    # Return the authority of a target in absolute form.
    if target.startswith("/") or "://" not in target or not target.isascii():
        return None
    return str(parse_target("GET", target).authority).encode("ascii")


def _frame(method: str, fields: Sequence[Field], body: RequestBody) -> list[Field]:
    # Return the field, if any, that frames a request's body (RFC 9112 §6).
    lengths = field_values(fields, b"content-length")
    if isinstance(body, bytes):
        if lengths:
            raise ValueError("Content-Length is written by the library: body is bytes")
        # RFC 9110 §8.6: if the method expects a body, an empty one has a length, too.
        if body or method in _METHODS_WITH_CONTENT:
            return [(b"Content-Length", b"%d" % len(body))]
        return []
    if not isinstance(cast("object", body), AsyncIterable):
        raise TypeError(f"a body of {type(body).__name__}")
    if not lengths:
        return [(b"Transfer-Encoding", b"chunked")]
    if len(lengths) > 1 or not lengths[0].isdigit():
        raise ValueError(f"not a Content-Length: {lengths!r}")
    return []
