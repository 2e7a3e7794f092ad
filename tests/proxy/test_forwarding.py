"""The fields that tell the upstream who the client is (RFC 7239)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trio_upgrade import Authority
from trio_upgrade._proxy.forwarding import Forwarding

from .scenes import answer, okay, open_scene, request, split_head

PEER = ("9.8.7.6", 1234)


def set_fields(
    forwarding: Forwarding,
    *fields: tuple[bytes, bytes],
    peer: Any = PEER,
    local: Any = ("10.0.0.1", 80),
    host: str = "x",
) -> list[tuple[bytes, bytes]]:
    incoming: Any = SimpleNamespace(
        peer=peer, local=local, scheme="https", authority=Authority(host, 81)
    )
    if not host:
        incoming.authority = Authority("", None)
    return forwarding.set_fields(incoming, [(b"A", b"1"), *fields])


FORGED = [
    (b"X-Forwarded-For", b"1.1.1.1"),
    (b"X-Forwarded-Proto", b"gopher"),
    (b"X-Forwarded-Host", b"evil"),
    (b"Forwarded", b"for=1.1.1.1"),
    (b"X-Real-IP", b"1.1.1.1"),
]
X_OURS = [
    (b"X-Forwarded-For", b"9.8.7.6"),
    (b"X-Forwarded-Proto", b"https"),
    (b"X-Forwarded-Host", b"x:81"),
]
OURS = (b"Forwarded", b'for=9.8.7.6;proto=https;host="x:81"')


def test_x_forwarded() -> None:
    """What a stranger says is dropped, in the style of the proxy or another."""
    assert set_fields(Forwarding("x-forwarded", ()), *FORGED) == [(b"A", b"1"), *X_OURS]


def test_x_forwarded_of_a_trusted_peer() -> None:
    """Its chain is added to, its scheme and host stay, and the other style goes."""
    made = set_fields(
        Forwarding("x-forwarded", ["9.0.0.0/8"]),
        *FORGED,
        (b"X-Forwarded-For", b"2.2.2.2"),
    )

    assert made == [
        (b"A", b"1"),
        (b"X-Forwarded-Proto", b"gopher"),
        (b"X-Forwarded-Host", b"evil"),
        (b"X-Forwarded-For", b"1.1.1.1, 2.2.2.2, 9.8.7.6"),
    ]


def test_forwarded() -> None:
    """One element with all three (RFC 7239 §4)."""
    assert set_fields(Forwarding("forwarded", ()), *FORGED) == [(b"A", b"1"), OURS]


def test_forwarded_of_a_trusted_peer() -> None:
    """The element is the last one of the list."""
    made = set_fields(Forwarding("forwarded", ["9.8.7.6"]), *FORGED)

    assert made == [(b"A", b"1"), (b"Forwarded", b"for=1.1.1.1, " + OURS[1])]


def test_none_sets_nothing() -> None:
    """But a stranger's fields still go; a trusted peer's stay."""
    assert set_fields(Forwarding(None, ()), *FORGED) == [(b"A", b"1")]
    assert set_fields(Forwarding(None, ["9.8.7.6"]), *FORGED) == [(b"A", b"1"), *FORGED]


@pytest.mark.parametrize(
    ("peer", "node", "plain"),
    [
        (("2001:db8::1", 1), b'"[2001:db8::1]"', b"2001:db8::1"),
        (("fe80::1%eth0", 1), b'"[fe80::1]"', b"fe80::1"),
        (("::ffff:1.2.3.4", 1), b"1.2.3.4", b"1.2.3.4"),
        ("/run/x", b"unknown", None),
        ("", b"unknown", None),
        (None, b"unknown", None),
        (("not an address", 1), b"unknown", None),
    ],
)
def test_nodes(peer: Any, node: bytes, plain: bytes | None) -> None:
    """IPv6 is quoted, and a client without an address is unknown (RFC 7239 §6)."""
    element = set_fields(Forwarding("forwarded", ()), peer=peer)[-1][1]
    fields = dict(set_fields(Forwarding("x-forwarded", ()), peer=peer))

    assert element == b"for=" + node + b';proto=https;host="x:81"'
    assert fields.get(b"X-Forwarded-For") == plain


def test_request_without_host() -> None:
    """HTTP/1.0 may name no host."""
    assert set_fields(Forwarding("forwarded", ()), host="") == [
        (b"A", b"1"),
        (b"Forwarded", b"for=9.8.7.6;proto=https"),
    ]
    assert set_fields(Forwarding("x-forwarded", ()), host="")[1:] == X_OURS[:2]


def test_unix_clients_are_trusted_by_their_own_word() -> None:
    """They have no address, or one of their own choice."""
    forged = (b"X-Forwarded-For", b"1.1.1.1")
    for peer in ("", "/tmp/9.8.7.6", None):
        kept = set_fields(
            Forwarding("x-forwarded", ["unix"]), forged, peer=peer, local="/run/s"
        )
        gone = set_fields(
            Forwarding("x-forwarded", ["0.0.0.0/0"]), forged, peer=peer, local="/run/s"
        )

        assert forged in kept
        assert forged not in gone
    assert forged not in set_fields(Forwarding("x-forwarded", ["unix"]), forged)


@pytest.mark.parametrize(
    ("style", "trusted", "error"),
    [
        ("X-Forwarded", (), ValueError),
        (None, "10.0.0.0/8", TypeError),
        (None, ["10.0.0.1/8"], ValueError),
    ],
)
def test_arguments(style: Any, trusted: Any, error: type[Exception]) -> None:
    """They are checked when the proxy is made."""
    with pytest.raises(error):
        Forwarding(style, trusted)


@pytest.mark.parametrize("style", ["forwarded", None])
async def test_in_a_request(style: Any) -> None:
    """The option of the proxy decides."""
    async with open_scene(answer(okay()), forwarded=style) as scene:
        await scene.ask(request("Forwarded: for=1.1.1.1"))

    fields = split_head(scene.upstream.received)[1]
    assert [line for line in fields if line.startswith(b"Forwarded")] == (
        [b'Forwarded: for=127.0.0.1;proto=http;host="x"'] if style else []
    )
