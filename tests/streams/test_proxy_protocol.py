"""The header of the PROXY protocol: every form, every prefix, every defect."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import MalformedMessage
from trio_upgrade._streams.proxy_protocol import ProxyHeader, parse_proxy_header

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = bytes([192, 0, 2, 43, 10, 0, 0, 1]) + bytes.fromhex("1267 01bb")
V6 = (
    IPv6Address("2001:db8::1").packed
    + IPv6Address("2001:db8::2").packed
    + bytes.fromhex("1267 01bb")
)
CLIENT = ("192.0.2.43", 4711)


def v2(block: bytes, *, kind: int = 0x21, family: int = 0x11, length=None) -> bytes:
    """Return a header of version 2."""
    size = len(block) if length is None else length
    return SIGNATURE + bytes([kind, family]) + size.to_bytes(2) + block


def unix(source: bytes, destination: bytes = b"/run/balancer") -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


WHOLE = [
    # Version 1 (§2.1).
    (b"PROXY TCP4 192.0.2.43 10.0.0.1 4711 443\r\n", CLIENT),
    (
        b"PROXY TCP6 2001:DB8:0::1 2001:db8::2 4711 443\r\n",
        ("2001:db8::1", 4711),
    ),
    (b"PROXY TCP6 ::ffff:192.0.2.43 ::1 4711 443\r\n", CLIENT),
    (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ("255.255.255.255", 65535),
    ),
    (b"PROXY TCP4 192.0.2.43 10.0.0.1 0 0\r\n", ("192.0.2.43", 0)),
    (b"PROXY UNKNOWN\r\n", "own"),
    (b"PROXY UNKNOWN \xff \0 any thing\r\n", "own"),
    (
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b"x")
        + b"\r\n",
        "own",
    ),
    # Version 2 (§2.2).
    (v2(V4), CLIENT),
    (v2(V4, family=0x12), CLIENT),
    (v2(V6, family=0x21), ("2001:db8::1", 4711)),
    (v2(V6, family=0x22), ("2001:db8::1", 4711)),
    (v2(IPv6Address("::ffff:192.0.2.43").packed + V6[16:], family=0x21), CLIENT),
    (v2(unix(b"/run/client"), family=0x31), "/run/client"),
    (v2(unix(b"/run/caf\xe9"), family=0x32), "/run/caf\udce9"),
    (v2(unix(b"/run/a\0b"), family=0x31), "/run/a"),
    (v2(unix(b"\0abstract"), family=0x31), "\0abstract"),
    (v2(unix(b"x" * 108), family=0x31), "x" * 108),
    (v2(unix(b""), family=0x31), None),
    (v2(V4 + b"\x03\0\4\1\2\3\4\x20\0\0"), CLIENT),
    (v2(V4 + b"x" * 508), CLIENT),
    # LOCAL, whose family is to be ignored, and what the sender cannot describe.
    (v2(b"", kind=0x20, family=0x00), "own"),
    (v2(V4, kind=0x20), "own"),
    (v2(b"", kind=0x20, family=0xFF), "own"),
    (v2(b"x", family=0x00), "own"),
    (v2(b"", family=0x10), "own"),
    (v2(b"", family=0x01), "own"),
]


@pytest.mark.parametrize(("header", "peer"), WHOLE)
@pytest.mark.parametrize("after", [b"", b"GET / HTTP/1.1\r\n\r\n", SIGNATURE])
def test_whole(header: bytes, peer: object, after: bytes) -> None:
    """A header is found with its length, whatever follows it."""
    expected = ProxyHeader(
        len(header),
        peer != "own",
        None if peer == "own" else peer,  # type: ignore[arg-type]
    )

    assert parse_proxy_header(header + after) == expected


@pytest.mark.parametrize(("header", "peer"), WHOLE)
def test_every_prefix(header: bytes, peer: object) -> None:
    """A header that is not complete is not malformed."""
    for end in range(len(header)):
        assert parse_proxy_header(header[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy TCP4 ",
        b"PROXYX",
        b"PROXY\tTCP4",
        b"\r\n\r\nG",
        SIGNATURE[:-1] + b"X",
        # Version 1.
        b"PROXY \r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.256 1 1\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 x 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4  1\r\n",
        b"PROXY TCP4 1.2.3.\xb2 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
        b"PROXY UNKNOWN".ljust(107, b"x"),
        b"PROXY UNKNOWN".ljust(106, b"x") + b"\r\n",
        # Version 2.
        v2(V4, kind=0x11),
        v2(V4, kind=0x31),
        v2(V4, kind=0x22),
        v2(V4, kind=0x2F),
        v2(V4, family=0x41),
        v2(V4, family=0x13),
        v2(V4[:-1]),
        v2(V6[:-1], family=0x21),
        v2(unix(b"/x")[:-1], family=0x31),
        v2(b"", length=521),
        v2(b"", length=0xFFFF, kind=0x20),
    ],
)
def test_malformed(data: bytes) -> None:
    """Each defect is refused as soon as it is seen; the message says what it is."""
    with pytest.raises(MalformedMessage, match="PROXY protocol header"):
        parse_proxy_header(data)


def test_length_is_checked_first() -> None:
    """A header that is too long is refused before its bytes have come."""
    with pytest.raises(MalformedMessage, match="of 537 bytes, more than 536"):
        parse_proxy_header(v2(b"", length=521))


ports = st.integers(0, 65535)


@given(st.ip_addresses(), st.ip_addresses(), ports, ports, st.binary(max_size=300))
def test_round_trip(
    source: Any, destination: Any, sport: int, dport: int, after: bytes
) -> None:
    """What a sender writes is read, in both versions; the addresses need not be equal."""
    if source.version != destination.version:
        destination = (IPv4Address if source.version == 4 else IPv6Address)(1)
    kind = f"TCP{source.version}"
    line = f"PROXY {kind} {source} {destination} {sport} {dport}\r\n".encode()
    block = source.packed + destination.packed + sport.to_bytes(2) + dport.to_bytes(2)
    family = 0x11 if source.version == 4 else 0x21
    shown = getattr(source, "ipv4_mapped", None) or source
    for header in (line, v2(block, family=family), v2(block + b"t" * 9, family=family)):
        found = parse_proxy_header(header + after)

        assert found == (len(header), True, (str(shown), sport))


@given(
    st.binary(max_size=600)
    | st.binary(max_size=120).map(lambda data: b"PROXY " + data)
    | st.builds(
        bytes.__add__, st.just(b"PROXY TCP4 "), st.text("1.: \r\n").map(str.encode)
    )
    | st.binary(max_size=600).map(lambda data: SIGNATURE + data)
)
def test_arbitrary_bytes(data: bytes) -> None:
    """Any bytes are a header within the bound, the beginning of one, or refused."""
    try:
        found = parse_proxy_header(data)
    except MalformedMessage:
        return
    if found is None:
        assert len(data) < 536
    else:
        assert found.length <= min(536, len(data))
        assert parse_proxy_header(data[: found.length]) == found
        assert parse_proxy_header(data[: found.length - 1]) is None
