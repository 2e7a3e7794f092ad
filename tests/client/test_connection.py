"""The client, byte for byte: offers, the checked 101, refusals, and which end closes.

The C ids are the rows of the wire-case table; each runs whole, cut in two at every point,
and byte by byte.
"""

from __future__ import annotations

import errno
import selectors
from contextlib import suppress

import pytest
import trio
import trio.testing

from trio_upgrade import (
    BadBody,
    BadResponse,
    IllegalSwitch,
    Limits,
    OpenError,
    PeerGone,
    Response,
    Upgrade,
    UpgradeRefused,
    UsageError,
    open_connection,
    open_upgrade,
    serve_tcp,
)
from trio_upgrade._streams.resetting import reset_on_close
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo, echo_app
from ..sockets import tcp_pair
from ..wire import SWITCHED, okay

URL = "http://example.com:81/chat?room=7"
OFFER = (
    b"GET /chat?room=7 HTTP/1.1\r\nHost: example.com:81\r\n"
    b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
)
PLAIN = b"HTTP/1.1 101 Switching Protocols\r\n"
LATE = okay(b"", status="408 Request Timeout")
# What a server may send although nothing asked for it.
UNASKED = [
    LATE,
    LATE.replace(b"1.1", b"1.0", 1) + b"\x80",
    LATE[:-1],
    okay(b"2"),
    okay(b"2", status="503 Service Unavailable"),
    SWITCHED,
    b"SSH-2.0-x",
]


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([bytes(chunk) async for chunk in stream])


async def check_switch(wire: bytes, expected: bytes, **options) -> None:
    """However the wire is cut, the switch is made and the stream yields this."""
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets)
        upgraded = await open_upgrade(URL, "echo", stream=peer, **options)
        async with upgraded as (response, stream, head):
            assert response.status == 101
            assert await read_all(stream) == expected
            assert expected.startswith(head)
            assert not peer.closed
        assert peer.closed


async def check_failure(wire: bytes, error: type[OpenError], match: str, **script):
    """However the wire is cut, opening fails with this, and nothing is left open."""
    for packets in split_points(wire):
        peer = ScriptedPeer(*packets, **script)
        with pytest.raises(error, match=match) as failure:
            await open_upgrade(URL, "echo", stream=peer)

        assert peer.closed, packets
    return failure.value


class TestSwitch:
    """A legal 101."""

    @pytest.mark.ids("U01", "U12", "C08", "M01")
    async def test_offer_on_the_wire(self) -> None:
        """One write has Host, both fields, then the user's fields."""
        peer = ScriptedPeer(SWITCHED)
        await open_upgrade(
            "ws://[::1]/",
            "a/1",
            "echo",
            method="POST",
            headers=[("X-A", "1"), ("connection", "HTTP2-Settings, upgrade")],
            body=b"hello",
            stream=peer,
        )

        assert peer.sent == (
            b"POST / HTTP/1.1\r\nHost: [::1]\r\n"
            b"Connection: upgrade, HTTP2-Settings\r\nUpgrade: a/1, echo\r\n"
            b"X-A: 1\r\nContent-Length: 5\r\n\r\nhello"
        )

    async def test_host_of_the_users(self) -> None:
        """A given Host field replaces the URL's."""
        peer = ScriptedPeer(SWITCHED)
        await open_upgrade(URL, "echo", headers={"host": "docker"}, stream=peer)

        assert peer.sent.count(b"ost: ") == 1
        assert b"\r\nhost: docker\r\n" in peer.sent

    @pytest.mark.ids("C1", "C2")
    async def test_head_then_data(self) -> None:
        """Bytes in the 101's packet and later ones are one stream."""
        await check_switch(SWITCHED + b"HEADdata", b"HEADdata")

    @pytest.mark.ids("C1")
    async def test_head_came_with_the_101(self) -> None:
        """``head`` has the bytes that came with the 101."""
        peer = ScriptedPeer(SWITCHED + b"HEAD", b"data")
        async with await open_upgrade(URL, "echo", stream=peer) as upgraded:
            assert upgraded.head == upgraded.stream.head == b"HEAD"
            assert peer.sent == OFFER

    @pytest.mark.ids("C8")
    @pytest.mark.parametrize(
        "field", ["Content-Length: 3", "Transfer-Encoding: chunked"]
    )
    async def test_framing_of_a_101_is_ignored(self, field: str) -> None:
        """A length or coding in a 101 frames nothing: the next bytes are the stream."""
        wire = SWITCHED[:-2] + field.encode() + b"\r\n\r\n\x80raw"

        await check_switch(wire, b"\x80raw")

    @pytest.mark.ids("C9", "U19", "R42")
    async def test_informational_responses_are_kept(self) -> None:
        """1xx responses before the 101 are skipped, and kept in ``informational``."""
        early = (
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        )
        await check_switch(early + SWITCHED + b"HEAD", b"HEAD")

        peer = ScriptedPeer(early + SWITCHED)
        async with await open_upgrade(URL, "echo", stream=peer) as upgraded:
            assert [head.status for head in upgraded.informational] == [100, 103]
            assert upgraded.informational[1].headers["link"] == "</a>"

    @pytest.mark.ids("C13")
    async def test_second_101_is_stream_data(self) -> None:
        """After the switch nothing is HTTP any more."""
        await check_switch(SWITCHED + SWITCHED, SWITCHED)

    @pytest.mark.ids("C15")
    async def test_end_after_the_101(self) -> None:
        """The server's end is an end of stream; our direction stays open."""
        for packets in split_points(SWITCHED):
            peer = ScriptedPeer(*packets)
            async with await open_upgrade(URL, "echo", stream=peer) as (_, stream, _):
                assert await stream.receive_some() == b""
                assert await stream.receive_some() == b""
                await stream.send_all(b"still here")

            assert peer.sent.endswith(b"still here")

    @pytest.mark.ids("C16")
    async def test_reset_after_the_101(self) -> None:
        """A reset raises in the reader; leaving the scope then raises nothing."""
        peer = ScriptedPeer(SWITCHED, then="reset")
        async with await open_upgrade(URL, "echo", stream=peer) as (_, stream, _):
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()

        assert peer.closed

    @pytest.mark.ids("C25")
    @pytest.mark.parametrize("line", [b"HTTP/1.1 101", b"HTTP/1.1 101 "])
    async def test_no_reason_phrase(self, line: bytes) -> None:
        """A status line without a reason phrase is accepted."""
        wire = SWITCHED.replace(b"HTTP/1.1 101 Switching Protocols", line)

        await check_switch(wire + b"HEAD", b"HEAD")

    @pytest.mark.ids("U03")
    @pytest.mark.parametrize(
        "fields",
        [
            b"Connection: keep-alive, uPgRade\r\nUPGRADE: ECHO\r\n",
            b"Upgrade: , echo,\r\nConnection: x\r\nConnection: upgrade\r\n",
            b"Connection: Upgrade\r\nUpgrade: echo\r\nContent-Type: x/y\r\n",
        ],
    )
    async def test_lists_and_case(self, fields: bytes) -> None:
        """Both fields are lists without case; other fields do not matter."""
        await check_switch(PLAIN + fields + b"\r\nHEAD", b"HEAD")


class TestTolerance:
    """A 101 without its Connection field, if the caller tolerates it."""

    LACKING = PLAIN + b"Upgrade: echo\r\n\r\n"

    async def test_missing(self) -> None:
        """open_upgrade and upgrade() accept it (caddy#6134); the default is below."""
        await check_switch(
            self.LACKING + b"HEAD", b"HEAD", tolerate_missing_connection=True
        )
        peer = ScriptedPeer(self.LACKING + b"HEAD")
        connection = await open_connection(URL, stream=peer)
        upgraded = await connection.upgrade(
            "/", "echo", tolerate_missing_connection=True
        )
        assert upgraded.head == b"HEAD"

    @pytest.mark.parametrize("value", [b"close", b"keep-alive", b""])
    async def test_wrong(self, value: bytes) -> None:
        """A Connection field that does not name Upgrade stays illegal."""
        wire = PLAIN + b"Upgrade: echo\r\nConnection: " + value + b"\r\n\r\n"
        peer = ScriptedPeer(wire)
        with pytest.raises(IllegalSwitch, match="does not name Upgrade"):
            await open_upgrade(
                URL, "echo", stream=peer, tolerate_missing_connection=True
            )
        assert peer.closed


class TestIllegalSwitch:
    """A 101 that no client may accept."""

    @pytest.mark.ids("C5", "C6", "C7", "R41")
    @pytest.mark.parametrize(
        ("head", "defect"),
        [
            (SWITCHED.replace(b": echo", b": other"), "'other', which was not offered"),
            (SWITCHED.replace(b": echo", b": echo/2"), "'echo/2', which was not"),
            (SWITCHED.replace(b": echo", b": echo, a"), "'a', which was not offered"),
            (SWITCHED.replace(b": echo", b": e cho"), "Upgrade field is malformed"),
            (SWITCHED.replace(b"HTTP/1.1", b"HTTP/1.0"), "it is HTTP/1.0"),
            (PLAIN + b"Connection: Upgrade\r\n\r\n", "it has no Upgrade field"),
            (SWITCHED.replace(b": echo", b": ,"), "it has no Upgrade field"),
            (
                PLAIN + b"Upgrade: echo\r\n\r\n",
                "Connection field does not name Upgrade",
            ),
            (PLAIN + b"\r\n", "it has no Upgrade field"),
        ],
    )
    async def test_defect(self, head: bytes, defect: str) -> None:
        """The error names the defect, and the connection is closed."""
        error = await check_failure(head + b"HEAD", IllegalSwitch, defect)

        assert defect in error.defect

    @pytest.mark.ids("C3", "C4")
    async def test_not_asked_for(self) -> None:
        """A 101 to an ordinary request raises and closes the connection (§7.8)."""
        for packets in split_points(SWITCHED + b"HEAD"):
            peer = ScriptedPeer(*packets)
            connection = await open_connection(URL, stream=peer)
            with pytest.raises(IllegalSwitch, match="asked for no switch"):
                await connection.request("GET", "/")

            assert peer.closed
            with pytest.raises(trio.ClosedResourceError):
                await connection.request("GET", "/")


class TestRefusal:
    """An ordinary response to an offer."""

    @pytest.mark.ids("C10", "R39")
    @pytest.mark.parametrize(
        ("status", "field"),
        [
            ("200 OK", "X-A: 1"),
            ("403 Forbidden", "X-A: 1"),
            ("426 Upgrade Required", "Upgrade: other, more/2"),
        ],
    )
    async def test_refused(self, status: str, field: str) -> None:
        """The error has the response, its body read, and the connection is closed."""
        wire = okay(b"reasons", field, status=status)

        error = await check_failure(wire, UpgradeRefused, f"refused with {status}")

        assert error.response.status == int(status[:3])
        assert error.response.reason == status[4:]
        assert error.response.http_version == "1.1"
        assert error.response.headers.raw[1] == tuple(field.encode().split(b": "))
        assert error.response.body == await error.response.read() == b"reasons"
        assert not error.response.truncated

    @pytest.mark.ids("C11", "U09")
    async def test_advertising_is_no_switch(self) -> None:
        """A 200 with Upgrade and Connection: upgrade stays a response."""
        wire = okay(b"plain", "Upgrade: echo", "Connection: upgrade")

        error = await check_failure(wire, UpgradeRefused, "200")

        assert error.response.body == b"plain"

    async def test_http_1_0_server(self) -> None:
        """A body that lasts until the end of the connection is a body."""
        wire = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"

        error = await check_failure(wire, UpgradeRefused, "200")

        assert error.response.body == b"until the end"
        assert error.response.http_version == "1.0"

    async def test_body_is_cut_at_the_limit(self) -> None:
        """Limits.refusal_body bytes of a long refusal are kept; ``truncated`` is set."""
        peer = ScriptedPeer(okay(b"x" * 100, status="403 Forbidden"))
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(URL, "echo", stream=peer, limits=Limits(refusal_body=10))

        assert caught.value.response.body == b"x" * 10
        assert caught.value.response.truncated

    async def test_body_that_breaks_off(self) -> None:
        """A refusal whose body breaks off is a refusal with the bytes that came."""
        wire = okay(b"reasons", status="403 Forbidden")[:-3]
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(URL, "echo", stream=ScriptedPeer(wire))

        assert caught.value.response.body == b"reas"
        assert caught.value.response.truncated

    async def test_refused_connection_can_go_on(self) -> None:
        """upgrade() leaves a refused connection usable once the body is read."""
        peer = ScriptedPeer(
            okay(b"no", status="403 Forbidden"), okay(b"yes"), SWITCHED + b"HEAD"
        )
        connection = await open_connection(URL, stream=peer)
        with pytest.raises(UpgradeRefused) as caught:
            await connection.upgrade("/", "echo")
        with pytest.raises(UsageError, match="body is not read"):
            await connection.request("GET", "/2")
        assert await caught.value.response.read() == b"no"
        response = await connection.request("GET", "/2")
        assert await response.read() == b"yes"
        async with await connection.upgrade("/3", "echo") as (_, stream, head):
            assert head == b"HEAD"
            with pytest.raises(trio.ClosedResourceError):
                await connection.request("GET", "/4")
            await connection.aclose()
            assert await stream.receive_some() == b"HEAD"


class TestGone:
    """Servers that go away, and servers that do not speak HTTP."""

    @pytest.mark.ids("C14")
    @pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 1", SWITCHED[:-2]])
    @pytest.mark.parametrize("then", ["end", "reset"])
    async def test_before_the_answer_is_complete(self, wire: bytes, then: str) -> None:
        """An end or a reset before the complete response is PeerGone."""
        error = await check_failure(wire, PeerGone, "connection", then=then)

        broken = isinstance(error.__cause__, trio.BrokenResourceError)
        assert broken == (then == "reset")

    @pytest.mark.ids("F7")
    @pytest.mark.parametrize("then", ["end", "reset"])
    @pytest.mark.parametrize("body", [b"", b"x", bytes(200_000)])
    async def test_request_sent(self, then, body: bytes) -> None:
        """The error says whether any byte of the request was given to the stream."""
        peer = ScriptedPeer(b"H", then=then).hold_until_sent(b"GET")
        with pytest.raises(PeerGone) as caught:
            await open_upgrade(URL, "echo", body=body, stream=peer)

        assert caught.value.request_sent

        peer = ScriptedPeer(okay(b"1", "Connection: close"), then=then)
        connection = await open_connection(URL, stream=peer)
        await (await connection.request("GET", "/")).read()
        with pytest.raises(PeerGone, match="the last response ended") as caught:
            await connection.request("GET", "/", body=body)

        assert not caught.value.request_sent

    @pytest.mark.ids("C24")
    @pytest.mark.parametrize(
        ("wire", "match"),
        [
            (b"HTTP/1.1 101 Go\nUpgrade: echo\n\n", "bare CR or LF"),
            (b"\r\nHTTP/1.1 101 Go\r\n\r\n", "0x0d"),
            (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "begins with 'S'"),
            (b"HTTP/1.1 101 Go\r\nA : b\r\n\r\n", "illegal header line"),
        ],
    )
    async def test_no_http(self, wire: bytes, match: str) -> None:
        """Bytes that are not HTTP are a BadResponse."""
        await check_failure(wire, BadResponse, match)

    @pytest.mark.ids("F11")
    @pytest.mark.parametrize("count", [127, 129, 1000])
    async def test_many_fields(self, count: int) -> None:
        """Up to 1,000 fields are accepted: Set-Cookie is not merged (RFC 9110 §5.3)."""
        cookies = [f"Set-Cookie: n{number}=v" for number in range(count - 2)]
        peer = ScriptedPeer(okay(b"1", *cookies))
        async with await open_connection(URL, stream=peer) as connection:
            response = await connection.request("GET", "/")

            assert len(response.headers.get_list("set-cookie")) == count - 2
            assert await response.read() == b"1"

    @pytest.mark.ids("F11")
    @pytest.mark.parametrize(
        ("line", "match"),
        [
            ("A:", r": more than 1000 fields \(header_fields\)$"),
            ("A: " + "b" * 32, r"more than 32768 bytes \(header_bytes\)$"),
        ],
    )
    async def test_too_many_fields(self, line: str, match: str) -> None:
        """The message names the limit."""
        peer = ScriptedPeer(okay(b"1", *[line] * 999))
        with pytest.raises(BadResponse, match=match):
            await open_upgrade(URL, "echo", stream=peer)

    async def test_head_over_the_limit(self) -> None:
        """A header section over its limit is a BadResponse, however it is cut."""
        wire = SWITCHED[:-2] + b"A: " + b"x" * 100 + b"\r\n\r\n"
        for packets in split_points(wire):
            with pytest.raises(BadResponse, match="more than 100 bytes"):
                await open_upgrade(
                    URL,
                    "echo",
                    stream=ScriptedPeer(*packets),
                    limits=Limits(header_bytes=100),
                )

    async def test_too_many_informational_responses(self) -> None:
        """One 1xx more than Limits.informational is a BadResponse."""
        early = b"HTTP/1.1 102 Processing\r\n\r\n"
        limits = Limits(informational=2)

        await open_upgrade(
            URL, "echo", stream=ScriptedPeer(early * 2 + SWITCHED), limits=limits
        )
        with pytest.raises(BadResponse, match="too many informational"):
            await open_upgrade(
                URL, "echo", stream=ScriptedPeer(early * 3 + SWITCHED), limits=limits
            )

    async def test_answer_before_the_body_is_through(self) -> None:
        """The response of a server that answers early and stops reading is received."""
        stream = Unread(okay(b"too much", status="413 Content Too Large"))
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(URL, "echo", body=b"x" * 100, stream=stream)

        assert caught.value.response.body == b"too much"

    @pytest.mark.ids("U14", "C18")
    async def test_switch_before_the_body_is_through(self) -> None:
        """It cannot switch: the whole request has to be sent first (RFC 9110 §7.8)."""
        with pytest.raises(IllegalSwitch, match="before the request was through"):
            await open_upgrade(URL, "echo", body=b"x" * 100, stream=Unread(SWITCHED))


class Unread(trio.abc.Stream):
    """A connection to a server that reads nothing and has already answered."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        raise trio.BrokenResourceError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        answer, self.answer = self.answer, b""
        return answer

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class TestCancellation:
    """A cancellation at any point leaves nothing open and is not swallowed."""

    @pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 1", okay(b"x" * 9)[:-5]])
    async def test_while_opening(self, wire: bytes) -> None:
        """Cancelled before, within or after the head, the stream is closed."""
        peer = ScriptedPeer(wire, then="silence")
        async with trio.open_nursery() as nursery:

            async def dial() -> None:
                await open_upgrade(URL, "echo", stream=peer)
                raise AssertionError("not cancelled")

            nursery.start_soon(dial)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert peer.closed

    async def test_timeout_round_the_opening_only(self, autojump_clock) -> None:
        """A timeout round the await does not bound the session."""
        peer = ScriptedPeer(SWITCHED, then="silence")
        with trio.fail_after(1):
            upgraded = await open_upgrade(URL, "echo", stream=peer)
        async with upgraded as (_, stream, _):
            with trio.move_on_after(100) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught
            peer.finish()

        assert peer.got_eof


class TestArguments:
    """A mistake in the arguments is raised before anything is sent."""

    @pytest.mark.parametrize(
        ("url", "options", "error", "match"),
        [
            ("ftp://x/", {}, ValueError, "scheme 'ftp'"),
            ("http:///x", {}, ValueError, "no host"),
            ("http://x/", {"via": "http://y"}, TypeError, "stream="),
            ("http://u:se@cret@x/", {}, ValueError, "credentials"),
            ("http://x:99999/", {}, ValueError, "port"),
            ("http://x/a b", {}, ValueError, "blanks"),
            ("http://x/", {"headers": {"Upgrade": "x"}}, ValueError, "Upgrade"),
            ("http://x/", {"headers": {"Content-Length": "x"}}, ValueError, "Length"),
            ("http://x/", {"headers": {"A": "b\r\nC: d"}}, ValueError, "A: control"),
            ("http://x/", {"headers": {"Connection": "a b"}}, ValueError, "'a b'"),
            ("http://x/", {"method": "G T"}, ValueError, "G T|method"),
        ],
    )
    async def test_refused(self, url, options, error, match: str) -> None:
        """The error is clear; the given stream is closed nevertheless."""
        peer = ScriptedPeer(SWITCHED)
        with pytest.raises(error, match=match) as caught:
            await open_upgrade(url, "echo", stream=peer, **options)

        assert "cret" not in str(caught.value)
        assert not peer.sent

    @pytest.mark.ids("R46", "CVE-2026-1527")
    @pytest.mark.parametrize("protocol", ["a\r\nB: c", "a b", "", "a/", "/1", "a,b"])
    async def test_bad_protocol(self, protocol: str) -> None:
        """A protocol that is not a token cannot be offered."""
        peer = ScriptedPeer(SWITCHED)
        with pytest.raises(ValueError, match="protocol name"):
            await open_upgrade(URL, protocol, stream=peer)

        assert peer.closed
        assert not peer.sent

    async def test_no_protocol(self) -> None:
        """An offer without a protocol is a TypeError."""
        peer = ScriptedPeer(SWITCHED)
        with pytest.raises(TypeError, match="at least one protocol"):
            await open_upgrade(URL, stream=peer)

        assert peer.closed

    async def test_bad_url_closes_the_stream(self) -> None:
        """open_connection owns its stream from the call on."""
        peer = ScriptedPeer()
        with pytest.raises(ValueError, match="scheme"):
            await open_connection("x://y", stream=peer)

        assert peer.closed


class TestConnection:
    """Requests one after the other."""

    async def test_requests_in_a_row(self) -> None:
        """Each gets its response; bodies have a length, an empty POST has zero."""
        peer = ScriptedPeer(okay(b"1"), okay(b"2"), okay(b""))
        async with await open_connection(URL, stream=peer) as connection:
            for method, body in (("GET", b""), ("PUT", b"hello"), ("POST", b"")):
                response = await connection.request(
                    method, "/", headers={"X-A": "1"}, body=body
                )
                await response.read()

        host = b"Host: example.com:81\r\nX-A: 1\r\n"
        assert peer.sent == (
            b"GET / HTTP/1.1\r\n" + host + b"\r\n"
            b"PUT / HTTP/1.1\r\n" + host + b"Content-Length: 5\r\n\r\nhello"
            b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 0\r\n\r\n"
        )
        assert peer.closed

    async def test_streamed_body(self) -> None:
        """A response body can be read as it comes."""
        wire = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        )
        for packets in split_points(wire):
            peer = ScriptedPeer(*packets)
            connection = await open_connection(URL, stream=peer)
            response = await connection.request("GET", "/")
            chunks = [chunk async for chunk in response.stream()]

            assert b"".join(chunks) == b"onetwo"
            assert repr(response) == "<ClientResponse 200 OK>"

    async def test_trailers(self) -> None:
        """The fields after a body are there when it has been read (RFC 9112 §7.1.2)."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire = head + b"3\r\none\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n"
        for packets in split_points(wire + okay(b"two")):
            for streamed in (True, False):
                peer = ScriptedPeer(*packets, then="silence")
                connection = await open_connection(URL, stream=peer)
                response = await connection.request("GET", "/")
                assert response.trailers.raw == ()
                if streamed:
                    assert b"".join([c async for c in response.stream()]) == b"one"
                else:
                    assert await response.read() == b"one"
                assert response.trailers.get_list("X-Sum") == ["1", "2"]
                assert "x-sum" not in response.headers
                if len(packets) > 2:
                    # Byte by byte, the second response was not read ahead.
                    second = await connection.request("GET", "/")
                    assert await second.read() == b"two"
                    assert second.trailers.raw == ()
                assert len(response.trailers) == 1

    @pytest.mark.ids("M04")
    async def test_broken_trailers(self) -> None:
        """Broken trailer lines that h11 would accept break the body, too."""
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for section in (b"A: b\n\r\n", b"A: b\r\n c\r\n\r\n", b"A: b\rC: d\r\n\r\n"):
            peer = ScriptedPeer(head + b"3\r\none\r\n0\r\n" + section)
            connection = await open_connection(URL, stream=peer)
            response = await connection.request("GET", "/")
            for _ in range(2):
                with pytest.raises(BadBody, match="trailer"):
                    await response.read()
            assert response.trailers.raw == ()

    async def test_cancelled_read_goes_on(self) -> None:
        """A cancelled read loses nothing."""
        peer = ScriptedPeer(okay(b"hello")[:-3], then="silence")
        connection = await open_connection(URL, stream=peer)
        response = await connection.request("GET", "/")
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(response.read)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        peer.feed(b"llo")

        assert await response.read() == b"hello"

    async def test_broken_body(self) -> None:
        """A body that breaks off raises, and the connection cannot be used again."""
        peer = ScriptedPeer(okay(b"hello")[:-3])
        connection = await open_connection(URL, stream=peer)
        response = await connection.request("GET", "/")
        with pytest.raises(BadBody):
            await response.read()
        with pytest.raises(UsageError):
            await connection.request("GET", "/")

    @pytest.mark.ids("M12")
    async def test_closed_by_the_response(self) -> None:
        """After ``Connection: close`` no request is made."""
        peer = ScriptedPeer(okay(b"bye", "Connection: close"))
        connection = await open_connection(URL, stream=peer)
        response = await connection.request("GET", "/")
        await response.read()
        with pytest.raises(PeerGone, match="ended the connection"):
            await connection.request("GET", "/")
        assert peer.closed

    async def test_connect_is_no_request(self) -> None:
        """request() refuses CONNECT: after a 2xx there would be a tunnel, not a body."""
        peer = ScriptedPeer(okay(b""))
        connection = await open_connection(URL, stream=peer)
        with pytest.raises(ValueError, match="CONNECT"):
            await connection.request("CONNECT", "a:1")
        with pytest.raises(ValueError, match="CONNECT"):
            await connection.upgrade("a:1", "echo", method="CONNECT")

        assert not peer.sent

    @pytest.mark.ids("M08", "C12")
    async def test_more_than_the_response(self) -> None:
        """Bytes that came before the request are never taken for its response."""
        peer = ScriptedPeer(okay(b"ok") + SWITCHED)
        connection = await open_connection(URL, stream=peer)
        response = await connection.request("GET", "/")
        assert await response.read() == b"ok"
        with pytest.raises(BadResponse, match="more than its response"):
            await connection.request("GET", "/")
        assert peer.closed

    async def test_head_and_informational(self) -> None:
        """A response to HEAD has no body; 1xx are kept on the response."""
        peer = ScriptedPeer(
            b"HTTP/1.1 103 Hints\r\n\r\n", okay(b"abc")[:-3], okay(b"1")
        )
        connection = await open_connection(URL, stream=peer)
        response = await connection.request("HEAD", "/")

        assert await response.read() == b""
        assert [head.status for head in response.informational] == [103]
        assert await (await connection.request("GET", "/")).read() == b"1"

    async def test_malformed_request_leaves_it_usable(self) -> None:
        """A request that cannot be written sends nothing; the connection can be used."""
        peer = ScriptedPeer(okay(b"1"))
        connection = await open_connection(URL, stream=peer)
        with pytest.raises(ValueError, match="target"):
            await connection.request("GET", "/a b")
        with pytest.raises(ValueError, match="Upgrade"):
            await connection.request("GET", "/", headers={"Upgrade": "echo"})
        with pytest.raises(TypeError, match="at least one"):
            await connection.upgrade("/")

        assert await (await connection.request("GET", "/")).read() == b"1"

    async def test_closing(self) -> None:
        """``aclose`` is idempotent; afterwards no request can be made."""
        peer = ScriptedPeer()
        connection = await open_connection(URL, stream=peer)
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                await connection.aclose()

        assert peer.closed
        with pytest.raises(trio.ClosedResourceError):
            await connection.request("GET", "/")


async def give(connection_to: trio.SocketStream, data: bytes) -> None:
    """Answer one request on a real socket, and send some bytes after the response."""
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += await connection_to.receive_some()
    await connection_to.send_all(okay(b"1") + data)


class TestIdle:
    """A server sends, or ends, while no request is under way."""

    async def ask_twice(self, far: trio.SocketStream, near: trio.SocketStream, then):
        connection = await open_connection(URL, stream=near)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give, far, b"")
            response = await connection.request("GET", "/1")
            assert await response.read() == b"1"
        await then()
        try:
            return await connection.request("GET", "/2")
        finally:
            with pytest.raises(trio.ClosedResourceError):
                await near.send_all(b"")

    @pytest.mark.ids("M08", "C12", "F7")
    @pytest.mark.parametrize("then", ["silence", "end", "reset"])
    @pytest.mark.parametrize("wire", UNASKED)
    async def test_unasked_bytes(self, wire: bytes, then: str) -> None:
        """They are never taken for a response, and nothing is sent (RFC 9112 §9.2)."""
        error: type[OpenError] = BadResponse
        match = ": the server sent more than its response$"
        if then != "silence" or (b" 408 " in wire and b"\r\n\r\n" in wire):
            error, match = PeerGone, ": the server ended the idle connection$"
        for packets in [(wire,), (wire[:9], wire[9:]), [bytes([o]) for o in wire]]:
            near, far = await tcp_pair()

            async def speak(far=far, near=near, packets=packets) -> None:
                for packet in packets:
                    await far.send_all(packet)
                if then == "end":
                    await far.send_eof()
                elif then == "reset":
                    reset_on_close(far)
                    await far.aclose()
                await trio.lowlevel.wait_readable(near.socket)

            async with far:
                with pytest.raises(error, match=match) as caught:
                    await self.ask_twice(far, near, speak)
                assert not getattr(caught.value, "request_sent", False)
                if then != "reset":
                    with suppress(trio.BrokenResourceError):
                        assert await far.receive_some() == b""

    @pytest.mark.ids("M08", "F7")
    @pytest.mark.parametrize("end", [True, False])
    async def test_unasked_bytes_in_the_same_packet(self, end: bool) -> None:
        """So are bytes in one packet with the response, and a 408 among them."""
        for unasked in (LATE, LATE[:-1], okay(b"2"), b"\0"):
            near, far = await tcp_pair()
            connection = await open_connection(URL, stream=near)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give, far, unasked)
                response = await connection.request("GET", "/1")
                assert await response.read() == b"1"
            if end:
                await far.send_eof()
            error = PeerGone if end or unasked == LATE else BadResponse
            with pytest.raises(error):
                await connection.request("GET", "/2")
            await far.aclose()

    @pytest.mark.ids("F7")
    async def test_408_without_a_socket(self) -> None:
        """A 408 that came with the last response ends the connection on any stream."""
        for packets in split_points(LATE):
            peer = ScriptedPeer(okay(b"1") + packets[0], *packets[1:], then="silence")
            connection = await open_connection(URL, stream=peer)
            await (await connection.request("GET", "/1")).read()
            error = PeerGone if packets == (LATE,) else BadResponse
            with pytest.raises(error, match=r"idle|more than its response"):
                await connection.request("GET", "/2")

            assert peer.closed
            assert peer.sent.count(b"GET") == 1

    @pytest.mark.ids("F7")
    async def test_endless_unasked_bytes(self) -> None:
        """A server that goes on sending is not read to its end."""
        near, far = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def then() -> None:
                nursery.start_soon(flood)
                await trio.lowlevel.wait_readable(near.socket)

            async def flood() -> None:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await far.send_all(bytes(100_000))

            with pytest.raises(BadResponse, match="more than its response"):
                await self.ask_twice(far, near, then)
        await far.aclose()

    @pytest.mark.ids("M16")
    async def test_end(self) -> None:
        """After the server's end the next request raises PeerGone and sends nothing."""
        near, far = await tcp_pair()

        async def then() -> None:
            await far.send_eof()
            await trio.lowlevel.wait_readable(near.socket)

        async with far:
            with pytest.raises(PeerGone, match="ended the idle connection"):
                await self.ask_twice(far, near, then)
            assert await far.receive_some() == b""

    async def test_reset(self) -> None:
        """After the server's reset the next request raises PeerGone."""
        near, far = await tcp_pair()

        async def then() -> None:
            reset_on_close(far)
            await far.aclose()
            await trio.lowlevel.wait_readable(near.socket)

        with pytest.raises(PeerGone, match="ended the idle connection"):
            await self.ask_twice(far, near, then)

    async def test_closed_below(self) -> None:
        """After its owner has closed the stream a request is a ClosedResourceError."""
        near, far = await tcp_pair()

        async def then() -> None:
            await near.aclose()

        async with far:
            with pytest.raises(trio.ClosedResourceError):
                await self.ask_twice(far, near, then)

    async def test_looking_takes_no_descriptor(self, monkeypatch) -> None:
        """The check for unasked input works when no descriptor is left, too."""

        def refuse(*_: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        for name in ("EpollSelector", "KqueueSelector", "DevpollSelector"):
            if hasattr(selectors, name):
                monkeypatch.setattr(getattr(selectors, name), "__init__", refuse)
        await self.test_quiet()

    async def test_quiet(self) -> None:
        """If the server sent nothing meanwhile, the next request works."""
        near, far = await tcp_pair()
        async with far, await open_connection(URL, stream=near) as connection:
            for _ in range(3):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(give, far, b"")
                    response = await connection.request("GET", "/")
                    assert await response.read() == b"1"

    async def test_not_looked_for_elsewhere(self) -> None:
        """On other streams only bytes already read count: they may hold bytes of TLS."""
        peer = ScriptedPeer(okay(b"1"), then="silence")
        connection = await open_connection(URL, stream=peer)
        await (await connection.request("GET", "/")).read()
        peer.feed(okay(b"2"))

        assert await (await connection.request("GET", "/")).read() == b"2"


class TestOverTCP:
    """The same over real sockets."""

    async def test_dial(self) -> None:
        """A URL is dialled; the echo comes back; the end arrives on both sides."""
        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, echo_app, 0)
            upgraded = await open_upgrade(server.url + "/x", "echo")
            async with upgraded as (response, stream, _):
                assert response.reason == "Switching Protocols"
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
                await stream.send_eof()
                assert await stream.receive_some() == b""
            async with await open_connection(server.url) as connection:
                answer = await connection.request("GET", "/y")
                assert await answer.read() == b"/y"
            nursery.cancel_scope.cancel()

    async def test_refused_connection(self) -> None:
        """A refused connection is an OSError, as from Trio."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        await listener.aclose()

        with pytest.raises(OSError, match=str(port)):
            await open_upgrade(f"http://127.0.0.1:{port}/", "echo")

    async def test_reset_reaches_the_handler_as_a_reset(self) -> None:
        """An error in the client's block resets: a cut must not look like an end."""
        outcome = trio.Event()

        async def handler(request, stream, head) -> None:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
            outcome.set()

        async def app(request) -> Upgrade | Response:
            return Upgrade("echo", handler)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            with pytest.raises(LookupError):
                async with await open_upgrade(server.url, "echo"):
                    raise LookupError
            with trio.fail_after(10):
                await outcome.wait()
            nursery.cancel_scope.cancel()

    @pytest.mark.ids("S36", "I4")
    async def test_reset_costs_its_own_connection(self, caplog) -> None:
        """A client's reset ends only its own connection, whatever the handler does."""

        async def handler(request, stream, head) -> None:
            await echo(request, stream, head)

        async def idle(request, stream, head) -> None:
            pass

        async def app(request):
            return Upgrade("echo", idle if request.path == "/idle" else handler)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(serve_tcp, app, 0)
            async with await open_upgrade(server.url, "echo") as (_, survivor, _):
                for path in ("/", "/idle"):
                    with pytest.raises(LookupError):
                        async with await open_upgrade(server.url + path, "echo"):
                            raise LookupError
                await survivor.send_all(b"alive")
                assert await survivor.receive_some() == b"alive"
            nursery.cancel_scope.cancel()

        assert not caplog.records


async def test_detach_before_a_request() -> None:
    """A connection without a request gives its stream away, and is closed for itself."""
    peer = ScriptedPeer(b"SSH-2.0\r\n", then="silence")
    connection = await open_connection("http://host:22", stream=peer)
    stream = connection.detach()

    assert stream is peer
    assert not connection.reusable
    assert await stream.receive_some() == b"SSH-2.0\r\n"
    with pytest.raises(trio.ClosedResourceError):
        connection.detach()
    await connection.aclose()
    assert not peer.closed
    await stream.aclose()


async def test_detach_after_a_request() -> None:
    """A connection that spoke HTTP is not given away: bytes may have been read ahead."""
    peer = ScriptedPeer(okay(b""), then="silence")
    async with await open_connection("http://host", stream=peer) as connection:
        await (await connection.request("GET", "/")).read()
        with pytest.raises(UsageError, match="it is for HTTP"):
            connection.detach()
        assert connection.reusable
