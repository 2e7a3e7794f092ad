"""Basic authentication with a proxy (RFC 7617)."""

from __future__ import annotations

from base64 import b64encode

import pytest

from trio_upgrade import Headers
from trio_upgrade._proxy.basic import (
    challenge,
    check_realm,
    is_allowed,
    parse_basic,
)


def encode(text: bytes, scheme: bytes = b"Basic") -> Headers:
    return Headers([(b"Proxy-Authorization", scheme + b" " + b64encode(text))])


@pytest.mark.parametrize(
    ("headers", "credentials"),
    [
        (encode(b"a:b:c"), ("a", "b:c")),
        (encode(b"a:", b"bASIC "), ("a", "")),
        (encode("\u00fc:\u20ac".encode()), ("\u00fc", "\u20ac")),
        (encode(b"\xfc:x"), ("\u00fc", "x")),
        (encode(b"no colon"), None),
        (encode(b"a:b", b"Bearer"), None),
        (Headers(), None),
        (Headers([*encode(b"a:b").raw, *encode(b"a:b").raw]), None),
        (Headers([(b"Proxy-Authorization", b"Basic !!!")]), None),
        (Headers([(b"Proxy-Authorization", b"Basic \xe9")]), None),
        (Headers([(b"Proxy-Authorization", b"Basic")]), None),
        (Headers([(b"Authorization", b"Basic YTpi")]), None),
    ],
)
def test_parse(headers: Headers, credentials: tuple[str, str] | None) -> None:
    """One field, the scheme without case, UTF-8 or else Latin-1 (RFC 7617 §2)."""
    assert parse_basic(headers) == credentials


async def test_allowed() -> None:
    """The function may be async; only True lets a client through."""

    async def check(user: str, password: str) -> bool:
        return (user, password) == ("a", "b")

    assert await is_allowed(encode(b"a:b"), check)
    assert not await is_allowed(encode(b"a:c"), check)
    assert not await is_allowed(Headers(), check)
    assert await is_allowed(encode(b"a:b"), lambda *_: True)
    assert not await is_allowed(encode(b"a:b"), lambda *_: 1)  # type: ignore[arg-type]


@pytest.mark.ids("C09")
def test_challenge() -> None:
    """A 407 carries Proxy-Authenticate (RFC 9110 §15.5.8)."""
    response = challenge("the lab")

    assert response.status == 407
    assert response.headers["proxy-authenticate"] == (
        'Basic realm="the lab", charset="UTF-8"'
    )


@pytest.mark.parametrize("realm", ['a"b', "a\\b", "a\nb", "\u20ac"])
def test_realm_that_cannot_be_quoted(realm: str) -> None:
    """Nothing can be injected through a realm (RFC 9110 §5.6.4)."""
    assert check_realm("a b") == "a b"
    with pytest.raises(ValueError, match="a realm must be printable ASCII"):
        check_realm(realm)
