"""Peers of other protocols, which greet or answer in their own way and then wait."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from trio_upgrade import (
    BadResponse,
    PeerGone,
    open_connection,
    open_tunnel,
    open_upgrade,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..sockets import tcp_pair
from ..wire import SWITCHED, okay

URL = "http://example.com"

# The first bytes of peers that speak no HTTP/1.x, and how the message quotes them.
GREETINGS = {
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", "'S'"),
    "smtp": (b"220 mail.example ESMTP\r\n", "'2'"),
    "smtp error": (b"500 5.5.1 Command unrecognized\r\n", "'5'"),
    "ftp": (b"220-FTP\r\n220 ready\r\n", "'2'"),
    "nntp": (b"200 news.example ready\r\n", "'2'"),
    "imap": (b"* OK IMAP4rev1 ready\r\n", "'*'"),
    "pop3": (b"+OK POP3 ready\r\n", r"'\+'"),
    "redis error": (b"-ERR unknown command 'GET'\r\n", "'-'"),
    "redis array": (b"*1\r\n$4\r\nPING\r\n", "'*'"),
    "memcached": (b"ERROR\r\n", "'E'"),
    "rfb": (b"RFB 003.008\n", "'R'"),
    "irc": (b":irc.example NOTICE * :hello\r\n", "0x3a"),
    "mysql": (b"\x4a\x00\x00\x00\x0a8.0.36\x00", "'J'"),
    "mariadb": (b"\x5b\x00\x00\x00\x0a5.5.5-10.11\x00", "0x5b"),
    "postgres": (b"E\x00\x00\x00\x85SFATAL\x00", "'E'"),
    "mongodb": (b"\x00\x01\x00\x00", "0x00"),
    "amqp": (b"AMQP\x00\x00\x09\x01", "'A'"),
    "mqtt": (b"\x20\x02\x00\x01", "0x20"),
    "nats": (b'INFO {"server_id":"x"} \r\n', "'I'"),
    "zmtp": (b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f", "0xff"),
    "telnet": (b"\xff\xfd\x18\xff\xfd\x20", "0xff"),
    "rtsp": (b"RTSP/1.0 200 OK\r\n", "'R'"),
    "sip": (b"SIP/2.0 400 Bad Request\r\n", "'S'"),
    "icy": (b"ICY 200 OK\r\n", "'I'"),
    "xmpp": (b"<stream:stream xmlns='jabber:client'>", "0x3c"),
    "html": (b"<html><h1>Bad Request</h1></html>", "0x3c"),
    "text": (b"Bad Request", "'B'"),
    "text with an H": (b"Hello\r\n", "'He'"),
    "json": (b'{"error": "no"}', "0x7b"),
    "a request": (b"GET / HTTP/1.1\r\n", "'G'"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n", "'P'"),
    "http/2 settings": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "0x00"),
    "http/2 line": (b"HTTP/2.0 200 OK\r\n", "'HTTP/2'"),
    "http/2 short": (b"HTTP/2 200\r\n", "'HTTP/2'"),
    "http/0.9": (b"HTTP/0.9 200 OK\r\n", "'HTTP/0'"),
    "http in lower case": (b"http/1.1 200 OK\r\n", "'h'"),
    "no version": (b"HTTP 200 OK\r\n", "'HTTP '"),
    "no minor version": (b"HTTP/1 200 OK\r\n", "'HTTP/1 '"),
    "long version": (b"HTTP/1.10 200 OK\r\n", "'HTTP/1.10'"),
    "no status": (b"HTTP/1.1\r\n", "'HTTP/1.1\\\\r'"),
    "status 0": (b"HTTP/1.1 099 x\r\n", "'HTTP/1.1 0'"),
    "short status": (b"HTTP/1.1 20 OK\r\n", "'HTTP/1.1 20 '"),
    "long status": (b"HTTP/1.1 1010 OK\r\n", "'HTTP/1.1 1010'"),
    "two blanks": (b"HTTP/1.1  200 OK\r\n", "'HTTP/1.1  '"),
    "tls alert": (b"\x15\x03\x01\x00\x02\x02\x46", "a TLS alert where plain HTTP"),
    "tls handshake": (b"\x16\x03\x01\x00\x02", "a TLS handshake where plain HTTP"),
    "a blank line": (b"\r\n", "0x0d"),
    "bare LF": (b"HTTP/1.1 200 OK\n", "bare CR or LF"),
    "bare LF, no reason": (b"HTTP/1.1 200\n", r"'HTTP/1.1 200\\n'"),
    "bare CR": (b"HTTP/1.1 200 OK\rx", "bare CR or LF"),
    "control": (b"HTTP/1.1 200 O\x1bK", "control character"),
}
greetings = pytest.mark.parametrize(
    ("wire", "match"), GREETINGS.values(), ids=GREETINGS.keys()
)
PREFIXES = [
    line[:size]
    for line in (SWITCHED[:35], b"HTTP/1.0 200\r\nA: b\r\n")
    for size in range(1, len(line) + 1)
]
OPENINGS = {
    "offer": partial(open_upgrade, URL, "echo"),
    "large offer": partial(open_upgrade, URL, "echo", body=bytes(200_000)),
    "connect": partial(open_tunnel, URL, "a:1"),
}


@pytest.mark.ids("F1")
@greetings
@pytest.mark.parametrize("how", OPENINGS)
async def test_greeting(autojump_clock, wire: bytes, match: str, how: str) -> None:
    """A greeting is a BadResponse at once, whether the peer waits or ends."""
    for then in ("silence", "end"):
        for packets in [*split_points(wire), (wire + b"x" * 99,)]:
            peer = ScriptedPeer(*packets, then=then)
            with trio.fail_after(1), pytest.raises(BadResponse, match=match):
                await OPENINGS[how](stream=peer)

            assert peer.closed


@pytest.mark.ids("F1")
@greetings
async def test_greeting_to_a_request(autojump_clock, wire: bytes, match: str) -> None:
    """So is one that comes as the first answer, or as the second of a connection."""
    for before in (0, 1):
        for packets in split_points(wire):
            peer = ScriptedPeer(*[okay(b"1")] * before, *packets, then="silence")
            connection = await open_connection(URL, stream=peer)
            with trio.fail_after(1):
                for _ in range(before):
                    await (await connection.request("GET", "/")).read()
                with pytest.raises(BadResponse, match=match):
                    await connection.request("GET", "/")

            assert peer.closed


@pytest.mark.ids("F1")
async def test_first_wrong_byte(autojump_clock) -> None:
    """The bytes after the first wrong one are not waited for."""
    peer = ScriptedPeer(b"HTTP/", b"2", b"not read", then="silence")
    with trio.fail_after(1), pytest.raises(BadResponse):
        await open_upgrade(URL, "echo", stream=peer)

    assert peer.packets_left == 1


@pytest.mark.ids("F1")
async def test_greeting_over_tcp() -> None:
    """A real peer that greets and waits is refused, too."""
    near, far = await tcp_pair()
    async with far:
        await far.send_all(b"SSH-2.0-OpenSSH_9.6\r\n")
        with pytest.raises(BadResponse, match="'S'"):
            await open_upgrade(URL, "echo", stream=near)


@pytest.mark.ids("F1")
@pytest.mark.parametrize("wire", PREFIXES)
@pytest.mark.parametrize("how", OPENINGS)
async def test_prefix_of_a_status_line(autojump_clock, wire: bytes, how: str) -> None:
    """The beginning of a status line waits; an end after it is PeerGone."""
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets, then="silence")
        with trio.move_on_after(1) as scope:
            await OPENINGS[how](stream=peer)
        assert scope.cancelled_caught, packets

        with pytest.raises(PeerGone, match="within its answer"):
            await OPENINGS[how](stream=ScriptedPeer(*packets))
