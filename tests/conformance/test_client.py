"""The client: what it sends, and which answers it accepts."""

from __future__ import annotations

import pytest
import trio

from trio_upgrade import (
    BadResponse,
    IllegalSwitch,
    Limits,
    PeerGone,
    UpgradeRefused,
    UsageError,
    open_connection,
    open_upgrade,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..wire import SWITCHED, okay
from .wires import CONTINUE, URL, Dialling, read_all, with_fields

OFFER = b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
PLAIN = b"HTTP/1.1 101 Switching Protocols\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


@pytest.mark.ids("U01", "U12", "M01", "M02")
async def test_offer_on_the_wire(dialling: Dialling) -> None:
    """An offer has Host and both fields, and no extra bytes (RFC 9110 §7.8)."""
    await dialling.check_switch(SWITCHED, b"", sent=OFFER)


@pytest.mark.ids("U01")
async def test_most_wanted_first(dialling: Dialling) -> None:
    """Protocols and versions are offered in the caller's order (RFC 9110 §7.8)."""

    async def use(stream: trio.abc.Stream) -> None:
        await (await open_upgrade(URL, "z", "b/2", "echo", stream=stream)).aclose()

    sent = OFFER.replace(b": echo", b": z, b/2, echo")

    await dialling.run(use, SWITCHED, sent)


@pytest.mark.ids("U21", "U24", "U12")
async def test_options_beside_upgrade(dialling: Dialling) -> None:
    """The user's connection options are kept beside Upgrade (RFC 9110 §7.6.1)."""
    headers = [("HTTP2-Settings", "AAMA"), ("Connection", "HTTP2-Settings, upgrade")]
    sent = OFFER.replace(b"Connection: Upgrade", b"Connection: upgrade, HTTP2-Settings")

    await dialling.check_switch(
        SWITCHED, b"", with_fields(sent, "HTTP2-Settings: AAMA"), headers=headers
    )


@pytest.mark.ids("U29", "M01", "C08")
@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([URL, "a\r\nB: c"], {}),
        ([URL, "a b"], {}),
        ([URL, "a, b"], {}),
        ([URL, ""], {}),
        ([URL + "\r\nA: b", "echo"], {}),
        ([URL + " x", "echo"], {}),
        ([URL, "echo"], {"headers": {"A": "b\r\nC: d"}}),
        ([URL, "echo"], {"headers": {"A": "b\x00"}}),
        ([URL, "echo"], {"headers": {"A:": "b"}}),
        ([URL, "echo"], {"headers": {"Upgrade": "b"}}),
        ([URL, "echo"], {"headers": {"Content-Length": "5"}}),
        ([URL, "echo"], {"headers": {"Transfer-Encoding": "chunked"}}),
        ([URL, "echo"], {"method": "G\r\nET"}),
        ([URL, "echo"], {"method": "CONNECT"}),
    ],
)
async def test_nothing_malformed_is_sent(arguments: list[str], options) -> None:
    """A malformed request is not sent (RFC 9110 §5.5)."""
    peer = ScriptedPeer(SWITCHED)
    with pytest.raises(ValueError, match=r"\S"):
        await open_upgrade(*arguments, stream=peer, **options)

    assert not peer.sent
    assert peer.closed


@pytest.mark.ids("M02", "U14")
async def test_protocol_data_right_after_the_body(dialling: Dialling) -> None:
    """No byte is added between body and protocol data (RFC 9112 §2.2)."""

    async def use(stream: trio.abc.Stream) -> None:
        upgraded = await open_upgrade(
            URL, "echo", method="POST", body=b"body", stream=stream
        )
        async with upgraded:
            await upgraded.stream.send_all(b"HEAD")

    sent = with_fields(OFFER.replace(b"GET", b"POST"), "Content-Length: 4")

    await dialling.run(use, SWITCHED, sent + b"bodyHEAD")


@pytest.mark.ids("U03", "U28", "U25", "C13")
@pytest.mark.parametrize(
    "fields",
    [
        b"Connection: Upgrade\r\nUpgrade: echo\r\n",
        b"Upgrade: , ECHO ,,\r\nConnection: x\r\nConnection: uPGRADE\r\n",
    ],
)
async def test_legal_101(dialling: Dialling, fields: bytes) -> None:
    """A 101 may differ in case, order, lines and empty elements (RFC 9110 §7.8)."""
    rest = b"HEAD" + SWITCHED

    await dialling.check_switch(PLAIN + fields + b"\r\n" + rest, rest)


@pytest.mark.ids("U05")
async def test_layers_in_the_servers_order(dialling: Dialling) -> None:
    """A 101 may name several offers; their order is kept (RFC 9110 §7.8)."""

    async def use(stream: trio.abc.Stream) -> None:
        upgraded = await open_upgrade(URL, "HTTP/2.0", "TLS/1.3", stream=stream)
        async with upgraded:
            assert upgraded.response.headers["upgrade"] == "TLS/1.3, HTTP/2.0"

    await dialling.run(use, SWITCHED.replace(b": echo", b": TLS/1.3, HTTP/2.0"))


@pytest.mark.ids("U04", "U06", "U12", "U13", "C5", "C6", "C7")
@pytest.mark.parametrize(
    ("head", "defect"),
    [
        (PLAIN + b"Connection: Upgrade\r\n\r\n", "no Upgrade field"),
        (SWITCHED.replace(b": echo", b": ,"), "no Upgrade field"),
        (SWITCHED.replace(b": echo", b": other"), "'other', which was not offered"),
        (SWITCHED.replace(b": echo", b": echo/2"), "'echo/2', which was not offered"),
        (SWITCHED.replace(b": echo", b": echo, b"), "'b', which was not offered"),
        (SWITCHED.replace(b": echo", b": e cho"), "malformed"),
        (PLAIN + b"Upgrade: echo\r\n\r\n", "does not name Upgrade"),
        (SWITCHED.replace(b"n: Upgrade", b"n: close"), "does not name Upgrade"),
        (SWITCHED.replace(b"HTTP/1.1", b"HTTP/1.0"), "HTTP/1.0"),
    ],
)
async def test_illegal_101(dialling: Dialling, head: bytes, defect: str) -> None:
    """An illegal 101 raises with its defect, and closes (RFC 9110 §7.8)."""
    error = await dialling.check_failure(head + b"HEAD", IllegalSwitch, defect)

    assert isinstance(error, IllegalSwitch)
    assert defect in error.defect


@pytest.mark.ids("U04", "C3", "C4")
async def test_101_without_an_offer(dialling: Dialling) -> None:
    """A 101 to an ordinary request is an error, and closes (RFC 9110 §15.2.2)."""

    async def use(stream: trio.abc.Stream) -> None:
        async with await open_connection(URL, stream=stream) as connection:
            with pytest.raises(IllegalSwitch, match="asked for no switch"):
                await connection.request("GET", "/u")
            with pytest.raises(trio.ClosedResourceError):
                await connection.request("GET", "/u")

    await dialling.run(use, SWITCHED + b"HEAD", b"GET /u HTTP/1.1\r\nHost: x\r\n\r\n")


@pytest.mark.ids("U14", "C18")
async def test_101_before_the_request_is_sent() -> None:
    """A 101 before the whole body was sent is illegal (RFC 9110 §7.8)."""

    class Early(trio.abc.Stream):
        # Accepts no data, and has answered already.
        answer = SWITCHED
        closed = False

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError

        async def wait_send_all_might_not_block(self) -> None:
            raise AssertionError("not used")

        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            answer, self.answer = self.answer, b""
            return answer

        async def aclose(self) -> None:
            self.closed = True
            await trio.lowlevel.checkpoint()

    stream = Early()
    with pytest.raises(IllegalSwitch, match="before the request was through"):
        await open_upgrade(URL, "echo", body=b"x" * 100, stream=stream)

    assert stream.closed


@pytest.mark.ids("U18", "C8", "F4")
@pytest.mark.parametrize(
    "framing",
    [
        ("Content-Length: 3",),
        ("Transfer-Encoding: chunked",),
        ("Content-Length: x",),
        ("Content-Length: -1",),
        ("content-length:",),
        ("Content-Length: 1", "Content-Length: 2"),
        ("Content-Length: 1, 2",),
        ("Transfer-Encoding: gzip",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Content-Length: 3", "transfer-encoding: chunked"),
    ],
)
async def test_1xx_has_no_content(dialling: Dialling, framing: tuple[str, ...]) -> None:
    """A 1xx ends at its blank line, even with bad framing fields (RFC 9112 §6.3)."""
    early = with_fields(HINTS, *framing)
    raw = b"\x80\r\nraw"

    await dialling.check_switch(early + with_fields(SWITCHED, *framing) + raw, raw)

    old = early.replace(b"HTTP/1.1", b"HTTP/1.0")
    await dialling.check_switch(old + SWITCHED + raw, raw)

    peer = ScriptedPeer(early, okay(b"1"))
    async with await open_connection(URL, stream=peer) as connection:
        response = await connection.request("GET", "/")
        assert response.informational[0].headers.raw == ((b"Link", b"</a>"),)
        assert await response.read() == b"1"


@pytest.mark.ids("U19", "C9")
async def test_1xx_before_the_final_response(dialling: Dialling) -> None:
    """1xx responses up to a limit are accepted and kept (RFC 9110 §15.2)."""
    early = CONTINUE + HINTS + HINTS.replace(b"103", b"199")

    async def switch(stream: trio.abc.Stream) -> None:
        async with await open_upgrade(URL, "echo", stream=stream) as upgraded:
            statuses = [head.status for head in upgraded.informational]
            assert statuses == [100, 103, 199]
            assert await read_all(upgraded.stream) == b"HEAD"

    async def refuse(stream: trio.abc.Stream) -> None:
        with pytest.raises(UpgradeRefused) as caught:
            await open_upgrade(URL, "echo", stream=stream)
        assert len(caught.value.response.informational) == 3
        assert caught.value.response.body == b"no"

    await dialling.run(switch, early + SWITCHED + b"HEAD")
    await dialling.run(refuse, early + okay(b"no", status="403 Forbidden"))
    await dialling.check_failure(
        early + SWITCHED, BadResponse, "too many", limits=Limits(informational=2)
    )


@pytest.mark.ids("U09", "C10", "C11")
@pytest.mark.parametrize("status", ["200 OK", "426 Upgrade Required"])
async def test_advertising_is_no_switch(dialling: Dialling, status: str) -> None:
    """Only a 101 switches; other responses may only advertise (RFC 9110 §7.8)."""
    fields = ("Upgrade: echo", "Connection: upgrade")

    error = await dialling.check_failure(
        okay(b"plain", *fields, status=status), UpgradeRefused, status
    )

    assert isinstance(error, UpgradeRefused)
    assert error.response.body == b"plain"
    assert error.response.headers["upgrade"] == "echo"


@pytest.mark.ids("M08", "C12")
async def test_bytes_after_the_response(dialling: Dialling) -> None:
    """Bytes after a response answer no request, and close (RFC 9112 §9.2)."""

    async def use(stream: trio.abc.Stream) -> str:
        async with await open_connection(URL, stream=stream) as connection:
            response = await connection.request("GET", "/u")
            assert await response.read() == b"1"
            # If the bytes have not come yet, the client takes them for the next response.
            # If the end has come as well, they only go with it.
            with pytest.raises((BadResponse, IllegalSwitch, PeerGone)) as caught:
                await connection.request("GET", "/u")
            with pytest.raises(trio.ClosedResourceError):
                await connection.request("GET", "/u")
        return str(caught.value)

    await dialling.run(use, okay(b"1") + SWITCHED)

    peer = ScriptedPeer(okay(b"1") + okay(b"2"))
    async with await open_connection(URL, stream=peer) as connection:
        await (await connection.request("GET", "/u")).read()
        with pytest.raises(BadResponse, match="more than its response"):
            await connection.request("GET", "/u")

    assert peer.sent.count(b"GET") == 1


@pytest.mark.ids("M09")
async def test_one_request_at_a_time(dialling: Dialling) -> None:
    """A request needs the last response to be read to its end (RFC 9112 §9.3.2)."""

    async def use(stream: trio.abc.Stream) -> None:
        async with await open_connection(URL, stream=stream) as connection:
            response = await connection.request("GET", "/u")
            with pytest.raises(UsageError, match="not read to its end"):
                await connection.request("GET", "/u")
            assert await response.read() == b"1"

    await dialling.run(use, okay(b"1"), b"GET /u HTTP/1.1\r\nHost: x\r\n\r\n")


@pytest.mark.ids("M10", "M12")
@pytest.mark.parametrize(
    "answer",
    [
        okay(b"1", "Connection: close"),
        okay(b"1").replace(b"HTTP/1.1", b"HTTP/1.0"),
        b"HTTP/1.1 200 OK\r\n\r\n1",
    ],
    ids=["close", "http-1.0", "until the end"],
)
async def test_no_request_after_a_close(dialling: Dialling, answer: bytes) -> None:
    """No request is sent after the last response (RFC 9112 §9.6)."""

    async def use(stream: trio.abc.Stream) -> None:
        async with await open_connection(URL, stream=stream) as connection:
            response = await connection.request("GET", "/u")
            assert await response.read() == b"1"
            with pytest.raises(PeerGone, match="ended the connection"):
                await connection.request("GET", "/u")

    await dialling.run(use, answer, b"GET /u HTTP/1.1\r\nHost: x\r\n\r\n")


@pytest.mark.ids("M12")
async def test_no_request_after_our_own_close(dialling: Dialling) -> None:
    """No request is sent after a request with close (RFC 9112 §9.6)."""

    async def use(stream: trio.abc.Stream) -> None:
        async with await open_connection(URL, stream=stream) as connection:
            response = await connection.request(
                "GET", "/u", headers={"Connection": "close"}
            )
            assert await response.read() == b"1"
            with pytest.raises(PeerGone, match="ended the connection"):
                await connection.request("GET", "/u")

    sent = b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    await dialling.run(use, okay(b"1"), sent)


@pytest.mark.ids("C26", "R45")
async def test_switch_of_a_used_connection(dialling: Dialling) -> None:
    """A connection may switch after requests and refusals (RFC 9110 §7.8)."""
    refused = okay(b"no", status="403 Forbidden")
    for packets in split_points(SWITCHED + b"HEAD"):
        peer = ScriptedPeer(okay(b"1"), refused, *packets)
        connection = await open_connection(URL, stream=peer)
        assert await (await connection.request("GET", "/u")).read() == b"1"
        with pytest.raises(UpgradeRefused) as caught:
            await connection.upgrade("/u", "echo")
        assert await caught.value.response.read() == b"no"
        async with await connection.upgrade("/u", "echo") as upgraded:
            assert await read_all(upgraded.stream) == b"HEAD"

        assert peer.sent == b"GET /u HTTP/1.1\r\nHost: x\r\n\r\n" + OFFER * 2


@pytest.mark.ids("C14")
@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 1", SWITCHED[:-2], HINTS])
async def test_server_that_leaves(dialling: Dialling, wire: bytes) -> None:
    """An end before the response is complete is a PeerGone (RFC 9112 §8)."""
    await dialling.check_failure(wire, PeerGone, "ended the connection")


@pytest.mark.ids("C17", "C19")
@pytest.mark.parametrize("wire", [b"", HINTS, SWITCHED[:-2], SWITCHED])
async def test_cancelled_at_any_point(wire: bytes, autojump_clock) -> None:
    """A timeout around the opening or the session closes the stream at once."""
    for packets in split_points(wire) if wire else [()]:
        peer = ScriptedPeer(*packets, then="silence")
        started = trio.current_time()
        with trio.move_on_after(5) as scope:
            async with await open_upgrade(URL, "echo", stream=peer) as upgraded:
                await read_all(upgraded.stream)

        assert scope.cancelled_caught
        assert trio.current_time() - started == 5
        assert peer.closed


@pytest.mark.ids("C24")
@pytest.mark.parametrize(
    ("wire", "match"),
    [
        (PLAIN.replace(b"\r", b"") + b"\n", "bare CR or LF"),
        (PLAIN + b"A : b\r\n\r\n", "header"),
        (PLAIN + b"A: b\r\n c\r\n\r\n", "folded"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "status line"),
        (b"\r\n" + SWITCHED, "0x0d"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "a TLS alert"),
    ],
)
async def test_answer_not_http(dialling: Dialling, wire: bytes, match: str) -> None:
    """A response is parsed as strictly as a request (RFC 9112 §2.2)."""
    await dialling.check_failure(wire, BadResponse, match)
