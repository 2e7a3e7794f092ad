# Basic authentication with a proxy (RFC 7617, RFC 9110 §11.7).
from __future__ import annotations

from base64 import b64decode
from binascii import Error
from inspect import isawaitable
from typing import TYPE_CHECKING, TypeAlias, cast

from .. import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .. import Headers

Authenticate: TypeAlias = "Callable[[str, str], bool | Awaitable[bool]]"


def parse_basic(headers: Headers) -> tuple[str, str] | None:
    """Return user and password of a Proxy-Authorization field.

    None if the field is missing, repeated, of another scheme, or malformed.
    """
    values = headers.get_list("proxy-authorization")
    if len(values) != 1:
        return None
    scheme, _, token = values[0].partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = b64decode(token.strip(" "), validate=True)
    except (Error, ValueError):
        return None
    try:
        text = decoded.decode("utf-8")
    except UnicodeDecodeError:
        text = decoded.decode("latin-1")
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


async def is_allowed(headers: Headers, authenticate: Authenticate) -> bool:
    """Return whether a request has credentials that the user's function accepts."""
    credentials = parse_basic(headers)
    if credentials is None:
        return False
    answer = authenticate(*credentials)
    if isawaitable(answer):
        answer = await answer
    # Only True: a coroutine or a match object by mistake must let no one through.
    return cast("object", answer) is True


def challenge(realm: str) -> Response:
    """Return the 407, which names the scheme (RFC 9110 §15.5.8)."""
    value = f'Basic realm="{realm}", charset="UTF-8"'
    return Response(
        407, "this proxy needs credentials\n", {"Proxy-Authenticate": value}
    )


def check_realm(realm: str) -> str:
    """Return a realm that can be quoted.

    Raises:
        ValueError: It cannot.
    """
    if not (realm.isascii() and realm.isprintable()) or '"' in realm or "\\" in realm:
        raise ValueError(
            "a realm must be printable ASCII without quotes or backslashes"
        )
    return realm
