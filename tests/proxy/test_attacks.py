"""The history of attacks on intermediaries, one test for each, named after it."""

from __future__ import annotations

import pytest

from .scenes import End, answer, okay, open_scene, request, settle, split_head
from .test_switching import offer, switched

SMUGGLED = b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"


async def tunnel(end: End) -> None:
    await end.receive_until(b"\r\n\r\n")
    await end.send(switched())
    await end.receive_all()


async def ask(handler, *packets: bytes, **options) -> tuple[bytes, list[End]]:
    """Return what the client gets until it is silent, and the upstream's connections."""
    async with open_scene(handler, **options) as scene, scene.client() as client:
        await client.send(*packets)
        got = await client.receive_now()
    return got, scene.upstream.ends


async def test_cve_2018_1002105_no_pipe_after_a_refusal() -> None:
    """After a non-101 the client reaches no upstream past the rules (Kubernetes)."""
    got, ends = await ask(
        answer(okay(status="403 Forbidden")), offer(), SMUGGLED, SMUGGLED
    )

    assert got.startswith(b"HTTP/1.1 403 ")
    # Each of the three requests was forwarded as one, with the fields of the proxy.
    sent = b"".join(bytes(end.received) for end in ends)
    assert sent.count(b"Via: 1.1 us") == sent.count(b"HTTP/1.1\r\n") == 3
    # The connection that carried the offer carries nothing else.
    assert ends[0].received.count(b"HTTP/1.1\r\n") == 1


async def test_cve_2020_8559_no_redirect_is_followed() -> None:
    """A redirect in answer to an upgrade is the client's business (Kubernetes)."""
    got, ends = await ask(
        answer(okay("Location: http://127.0.0.1:1/", status="302 Found")),
        offer("Authorization: secret"),
    )

    assert got.startswith(b"HTTP/1.1 302 ")
    assert b"Location: http://127.0.0.1:1/" in got
    assert len(ends) == 1


@pytest.mark.parametrize(
    "status", ["426 Upgrade Required", "400 Bad Request", "200 OK", "204 No Content"]
)
async def test_cve_2019_17567_only_a_101_opens_a_tunnel(status: str) -> None:
    """Neither a 426 (Varnish, Envoy, httpd) nor any other status does (0ang3el)."""
    fields = ["Upgrade: websocket", "Connection: Upgrade"]
    wire = okay(*fields, status=status, body=b"")
    if status.startswith("204"):
        wire = wire.replace(b"Content-Length: 0\r\n", b"")
    got, ends = await ask(answer(wire), offer(), SMUGGLED)

    assert got.startswith(f"HTTP/1.1 {status}".encode())
    assert all(end.received.count(b"HTTP/1.1\r\n") == 1 for end in ends)


async def test_cve_2024_23326_200_with_upgrade_is_no_switch() -> None:
    """An Upgrade field in a 200 is not even passed on (Envoy)."""
    got, _ = await ask(
        answer(okay("Upgrade: websocket", "Connection: Upgrade")), offer()
    )

    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Upgrade" not in got


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        switched(token="other"),
        switched(token="websocket, other"),
        switched(token="websocket/2"),
        b"HTTP/1.0" + switched()[8:],
    ],
)
async def test_0ang3el_status_101_alone_is_no_switch(wire: bytes) -> None:
    """Status, Connection and an offered token are needed: else a 502, and no tunnel."""
    got, ends = await ask(answer(wire), offer(), b"early")

    assert got.startswith(b"HTTP/1.1 502 ")
    assert not ends[0].received.endswith(b"early")
    assert ends[0].ended or ends[0].was_reset


@pytest.mark.parametrize(
    "fields",
    [
        ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"),
        ("Connection: Upgrade", "HTTP2-Settings: AAMAAABk"),
        ("Connection: upgrade,close",),
    ],
)
@pytest.mark.parametrize("token", ["h2c", "H2C", "h2c, websocket2", "TLS/1.0"])
async def test_bishop_fox_2020_h2c_smuggling(
    fields: tuple[str, ...], token: str
) -> None:
    """The request goes on as an ordinary one (HAProxy, Nuster, go#80416)."""
    wire = request(f"Upgrade: {token}", *fields).replace(b"Connection: close\r\n", b"")
    got, ends = await ask(answer(switched(token="h2c")), wire)

    sent = bytes(ends[0].received).lower()
    assert b"upgrade" not in sent
    assert b"http2-settings" not in sent
    # The upstream's 101, which nothing asked for, is garbage.
    assert got.startswith(b"HTTP/1.1 502 ")


async def test_cve_2026_2833_nothing_before_the_101() -> None:
    """Bytes after the offer stay here, and are never the upstream's (Pingora)."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await settle()
        assert end.received.count(b"\r\n\r\n") == 1
        await end.send(okay(status="426 Upgrade Required"))
        await end.receive_all()

    got, ends = await ask(handle, offer() + SMUGGLED)

    assert got.startswith(b"HTTP/1.1 426 ")
    assert all(end.received.count(b"\r\n\r\n") == 1 for end in ends)


async def test_cve_2026_73548_no_poisoned_connection() -> None:
    """What an upstream sends unasked is no answer to the next client (Envoy)."""
    planted = okay(body=b"planted")

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(okay() + planted)
        await end.receive_all()

    async with open_scene(handle) as scene:
        for _ in range(3):
            got = await scene.ask(request())

            assert got.endswith(b"okay")
            assert b"planted" not in got


async def test_cve_2026_48931_planted_answer_on_an_idle_connection() -> None:
    """An idle connection with unread bytes is not used again (RFC 9112 §9.2)."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(okay(), okay(body=b"planted"))
        await end.receive_all()

    async with open_scene(handle) as scene:
        assert (await scene.ask(request())).endswith(b"okay")
        await settle()
        assert (await scene.ask(request())).endswith(b"okay")


async def test_cve_2026_69243_body_before_the_switch_is_framed() -> None:
    """The body of an offer is a body, and never bytes of the tunnel (aiohttp)."""
    body = SMUGGLED
    wire = offer(f"Content-Length: {len(body)}", body=body).replace(b"GET", b"POST", 1)

    async def handle(end: End) -> None:
        await end.receive_until(body)
        await end.send(switched())
        await end.receive_all()

    got, ends = await ask(handle, wire)

    head, _, rest = bytes(ends[0].received).partition(b"\r\n\r\n")
    assert got == switched()
    assert f"Content-Length: {len(body)}".encode() in head
    assert rest == body


async def test_cve_2026_59898_offer_without_connection_is_none() -> None:
    """An Upgrade field without its option goes no further (Netty, RFC 9110 §7.8)."""
    wire = request("Upgrade: websocket")
    _, ends = await ask(answer(okay()), wire)

    assert b"Upgrade" not in ends[0].received


async def test_cve_2026_43974_unsolicited_101() -> None:
    """A 101 that nothing asked for is a 502 (gun)."""
    got, ends = await ask(answer(switched()), request())

    assert got.startswith(b"HTTP/1.1 502 ")
    assert ends[0].ended or ends[0].was_reset


async def test_cve_2026_1527_no_crlf_in_tokens() -> None:
    """The 101 is built here, from a token that was checked (undici)."""
    got, _ = await ask(answer(switched(token="websocket\r\nX-Evil: 1")), offer())

    assert b"X-Evil" not in got


@pytest.mark.parametrize(
    "named",
    ["X-Forwarded-For", "x-forwarded-proto", "X-Forwarded-Host", "Via", "Host"],
)
async def test_cve_2021_32813_trusted_fields_cannot_be_named_away(named: str) -> None:
    """What the proxy sets is set after Connection was obeyed (Traefik, Go, echo)."""
    wire = request(f"Connection: {named}", "X-Forwarded-For: 6.6.6.6")
    _, ends = await ask(answer(okay()), wire)

    _, fields, _ = split_head(bytes(ends[0].received))
    assert b"X-Forwarded-For: 127.0.0.1" in fields
    assert b"X-Forwarded-Proto: http" in fields
    assert b"X-Forwarded-Host: x" in fields
    assert b"Via: 1.1 us" in fields
    assert b"Host: x" in fields


@pytest.mark.parametrize(
    "forged",
    [
        "X-Forwarded-For",
        "X_Forwarded_For",
        "x-forwarded-PROTO",
        "X-Forwarded-User",
        "Forwarded",
        "X-Real-IP",
    ],
)
async def test_forged_forwarding_fields(forged: str) -> None:
    """A peer that is not trusted cannot say who the client is (RFC 7239 §8.1)."""
    _, ends = await ask(answer(okay()), request(f"{forged}: 6.6.6.6"))

    assert b"6.6.6.6" not in ends[0].received


async def test_ghsa_c4j6_target_with_two_slashes_stays_a_path() -> None:
    """//host in origin-form names no other upstream (Next.js, hono)."""
    got, ends = await ask(answer(okay()), request(target="//evil.example:80/x"))

    assert got.endswith(b"okay")
    assert ends[0].received.startswith(b"GET //evil.example:80/x HTTP/1.1\r\nHost: x")


async def test_cve_2026_133111_origin_is_kept() -> None:
    """The upstream can check the Origin of a WebSocket (fastify)."""
    _, ends = await ask(tunnel, offer("Origin: http://evil.example"))

    assert b"\r\nOrigin: http://evil.example\r\n" in ends[0].received


async def test_kemal_767_pipelined_request_after_a_refused_offer() -> None:
    """It is a request of its own, with the proxy's fields, on another connection."""
    _, ends = await ask(answer(okay()), offer() + SMUGGLED)

    assert [end.received.count(b"Via: 1.1 us") for end in ends] == [1, 1]


async def test_cve_2026_129500_reset_of_a_tunnel_is_contained() -> None:
    """It ends its own tunnel and nothing else (fastify, socket.io, node-http-proxy)."""
    async with open_scene(tunnel) as scene:
        for _ in range(3):
            async with scene.client() as client:
                await client.send(offer())
                await client.receive_until(b"\r\n\r\n")
                await client.reset()
            await settle()

        assert scene.proxy.statistics().tunnels == 0
        assert all(end.was_reset for end in scene.upstream.ends)


async def test_node_http_proxy_877_nothing_stays_open_after_failed_upgrades() -> None:
    """Neither side keeps a socket (caddy#7418, go#80875)."""
    async with open_scene(answer(switched(token="wrong"))) as scene:
        for _ in range(3):
            async with scene.client() as client:
                await client.send(offer())
                await client.receive_until(b"\r\n\r\n")
        await settle()

        assert all(end.ended or end.was_reset for end in scene.upstream.ends)
