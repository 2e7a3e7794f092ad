"""CONNECT: a tunnel right after the request, or a response and a close."""

from __future__ import annotations

import pytest

from trio_upgrade import (
    Request,
    Response,
    Tunnel,
    Upgrade,
    UpgradedStream,
    UsageError,
    serve_stream,
)
from trio_upgrade.testing import ScriptedPeer, split_points

from ..apps import echo
from ..wire import BUG, DATE, closing, get, okay
from .wires import CONNECT, TUNNEL, Serving, with_fields

OLD = b"CONNECT a:1 HTTP/1.0\r\n\r\n"


async def tunnel_app(request: Request) -> Tunnel | Response:
    """Answer every CONNECT with a tunnel that echoes."""
    return (
        Tunnel(echo)
        if request.method == "CONNECT"
        else Response(200, request.path.encode())
    )


async def plain_app(request: Request) -> Response:
    """Refuse every request."""
    return Response(405, b"no", {"Allow": "GET"})


async def no_tunnel(request: Request, stream: UpgradedStream, head: bytes) -> None:
    raise AssertionError("the handler was called")


@pytest.mark.ids("C03", "U34", "S26")
async def test_tunnel_right_after_the_request(serving: Serving) -> None:
    """The 200 has no framing; the tunnel begins at the next byte (RFC 9110 §9.3.6)."""
    head = with_fields(CONNECT, "Connection: Upgrade", "Upgrade: echo")

    await serving.check(tunnel_app, CONNECT + b"\r\nHEAD", TUNNEL + b"\r\nHEAD")
    await serving.check(tunnel_app, head + b"HEAD", TUNNEL + b"HEAD")
    await serving.check(
        tunnel_app, get("/1") + CONNECT + b"x", okay(b"/1") + TUNNEL + b"x"
    )


@pytest.mark.ids("C03", "U13")
@pytest.mark.parametrize("host", [b"", b"Host: a:1\r\n", b"Host: other\r\n"])
async def test_tunnel_for_http_1_0(serving: Serving, host: bytes) -> None:
    """CONNECT in HTTP/1.0 without Host is served: ncat, socat, nc, openssl."""
    wire = OLD[:-2] + host + b"\r\n"

    await serving.check(tunnel_app, wire + b"HEAD", TUNNEL + b"HEAD")


@pytest.mark.ids("C03", "U34")
async def test_tunnel_from_within_the_app(serving: Serving) -> None:
    """accept_connect sends the 200 when the app is ready (RFC 9110 §9.3.6)."""

    async def app(request: Request) -> None:
        assert request.authority == ("::1", 443)
        stream, head = await request.accept_connect(headers={"Via": "1.1 x"})
        await echo(request, stream, head)

    wire = CONNECT.replace(b"a:1", b"[::1]:443")

    await serving.check(
        app, wire + b"HEAD", with_fields(TUNNEL, "Via: 1.1 x") + b"HEAD"
    )


@pytest.mark.ids("U34", "U21")
@pytest.mark.parametrize(
    "field",
    [
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Upgrade", "echo"),
    ],
)
async def test_no_framing_in_the_200(field: tuple[str, str]) -> None:
    """The 200 to CONNECT takes no length, coding or option (RFC 9110 §8.6)."""
    with pytest.raises(ValueError, match="written by the library"):
        Tunnel(echo, [field])

    async def app(request: Request) -> Response:
        with pytest.raises(ValueError, match="written by the library"):
            await request.accept_connect(headers=[field])
        return Response(503)

    peer = ScriptedPeer(CONNECT)
    await serve_stream(app, peer, strict=True)

    assert peer.sent == closing(okay(b"", status="503 Service Unavailable"))


@pytest.mark.ids("U34")
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_no_framing_without_content(serving: Serving, status: str) -> None:
    """A 204 and a 304 have no Content-Length (RFC 9110 §8.6)."""

    async def app(request: Request) -> Response:
        return Response(int(status[:3]))

    bare = f"HTTP/1.1 {status}\r\n".encode() + DATE + b"\r\n"

    await serving.check(app, get("/1") + get("/2"), bare * 2)


@pytest.mark.ids("O02", "S24")
async def test_refused_connect_closes(serving: Serving) -> None:
    """After a refused CONNECT nothing is processed (RFC 9931 §8)."""
    refused = closing(okay(b"no", "Allow: GET", status="405 Method Not Allowed"))

    for head in (CONNECT, with_fields(CONNECT, "Connection: keep-alive"), OLD):
        await serving.check(plain_app, head + get("/2"), refused)


@pytest.mark.ids("O03")
@pytest.mark.parametrize("agent", ["curl/8.5.0", "ncat", "Go-http-client/1.1"])
async def test_refused_connect_closes_for_every_client(
    serving: Serving, agent: str
) -> None:
    """A client known to wait for the 2xx is treated like the others (RFC 9931 §8)."""
    head = with_fields(CONNECT, f"User-Agent: {agent}", "Proxy-Connection: keep-alive")
    refused = closing(okay(b"no", "Allow: GET", status="405 Method Not Allowed"))

    await serving.check(plain_app, head + get("/2"), refused)


@pytest.mark.ids("O02", "M18")
@pytest.mark.parametrize("answer", ["200", "upgrade", "none", "error"])
async def test_no_tunnel_by_mistake(answer: str, caplog) -> None:
    """A 2xx or an Upgrade by mistake is a 500 and a close (RFC 9110 §9.3.6)."""

    async def app(request: Request) -> Response | Upgrade | None:
        if answer == "200":
            return Response(204)
        if answer == "upgrade":
            return Upgrade("echo", no_tunnel)
        if answer == "none":
            return None
        raise LookupError("oops")

    for packets in split_points(CONNECT + get("/2")):
        peer = ScriptedPeer(*packets)
        await serve_stream(app, peer)

        assert peer.sent == closing(BUG)
        assert peer.closed
    assert caplog.records


@pytest.mark.ids("C03")
async def test_tunnel_needs_a_connect(caplog) -> None:
    """Only a CONNECT can become a tunnel (RFC 9110 §9.3.6)."""

    async def returned(request: Request) -> Tunnel:
        return Tunnel(no_tunnel)

    async def within(request: Request) -> None:
        await request.accept_connect()

    error = BUG
    for app in (returned, within):
        peer = ScriptedPeer(get("/"))
        await serve_stream(app, peer)

        assert peer.sent == error


@pytest.mark.ids("C02", "C08")
@pytest.mark.parametrize(
    "target",
    [
        b"a",
        b"a:",
        b"a:0",
        b"a:65536",
        b"a:x",
        b"a:+1",
        b":1",
        b"[::1]",
        b"::1:1",
        b"[::1:1",
        b"a:1/",
        b"u@a:1",
        b"http://a:1",
        b"/a:1",
    ],
)
async def test_connect_without_a_port(serving: Serving, target: bytes) -> None:
    """A CONNECT target other than host:port is a 400 (RFC 9110 §9.3.6)."""
    wire = CONNECT.replace(b"CONNECT a:1", b"CONNECT " + target)

    await serving.check_refusal(wire + get("/2"), "400 Bad Request")


@pytest.mark.ids("C02")
@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        (b"a:1", "a", 1),
        (b"A.example:65535", "a.example", 65535),
        (b"127.0.0.1:080", "127.0.0.1", 80),
        (b"[2001:DB8::1]:443", "2001:db8::1", 443),
    ],
)
async def test_authority(serving: Serving, target: bytes, host: str, port: int) -> None:
    """The app gets host and port separately (RFC 9110 §9.3.6)."""

    async def app(request: Request) -> Tunnel:
        assert request.authority == (host, port)
        assert (request.path, request.query) == ("", "")
        return Tunnel(echo)

    wire = CONNECT.replace(b"CONNECT a:1", b"CONNECT " + target)

    await serving.check(app, wire + b"HEAD", TUNNEL + b"HEAD")


@pytest.mark.ids("C07", "S25")
@pytest.mark.parametrize(
    "framing", ["Content-Length: 2", "Content-Length: 02", "Transfer-Encoding: chunked"]
)
async def test_content_on_connect(serving: Serving, framing: str) -> None:
    """CONNECT with content is a 400: its end is ambiguous (RFC 9110 §9.3.6)."""
    wire = with_fields(CONNECT, framing) + b"HDmore"

    await serving.check_refusal(wire, "400 Bad Request", b"CONNECT has no content")


@pytest.mark.ids("C07")
async def test_no_content_is_none(serving: Serving) -> None:
    """CONNECT may have a Content-Length of 0 (RFC 9110 §9.3.6)."""
    wire = with_fields(CONNECT, "Content-Length: 0") + b"HEAD"

    await serving.check(tunnel_app, wire, TUNNEL + b"HEAD")


@pytest.mark.ids("C03")
async def test_second_answer_to_a_connect() -> None:
    """A tunnel can be accepted only once (RFC 9110 §9.3.6)."""

    async def app(request: Request) -> None:
        stream, head = await request.accept_connect()
        with pytest.raises(UsageError):
            await request.accept_connect()
        await echo(request, stream, head)

    peer = ScriptedPeer(CONNECT + b"HEAD")
    await serve_stream(app, peer, strict=True)

    assert peer.sent == TUNNEL + b"HEAD"
