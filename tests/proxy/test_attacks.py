"""The history of attacks on intermediaries, one test for each, named after it."""

from __future__ import annotations

import pytest
import trio

from trio_upgrade import Limits

from .scenes import HOST, End, answer, okay, open_scene, request, settle, split_head
from .test_forward import Names, connect, make_strict, open_forward
from .test_switching import echo, offer, switched

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


async def test_cve_2025_64763_early_data_of_a_connect_waits() -> None:
    """Nothing goes up before the 200, and of what waits only so much is read (Envoy)."""

    class Waiting(Names):
        ready = trio.Event()

        async def getaddrinfo(self, *args, **kwargs):
            await self.ready.wait()
            return await super().getaddrinfo(*args, **kwargs)

    async def handle(end: End) -> None:
        await end.receive_all()

    resolver = Waiting(loop=[HOST])
    trio.socket.set_custom_hostname_resolver(resolver)
    sent = 0

    async def flood(client: End) -> None:
        nonlocal sent
        while True:
            await client.stream.send_all(bytes(65536))
            sent += 65536

    async with open_forward(handle) as scene, scene.client() as client:
        await client.send(connect(f"loop:{scene.upstream.port}") + b"early")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, client)
            # Until no buffer on the way takes more.
            while True:
                before = sent
                await trio.sleep(0.05)
                if sent == before:
                    break
            assert not scene.upstream.ends
            assert not client.received
            nursery.cancel_scope.cancel()
        # Those of the kernel, and what is read ahead.
        assert sent < 16 * 2**20
        resolver.ready.set()
        await client.receive_until(b"\r\n\r\n")
        await settle()

        assert client.received.startswith(b"HTTP/1.1 200 ")
        assert scene.upstream.received.startswith(b"early" + bytes(100_000))


@pytest.mark.parametrize("fields", [(), ("Content-Length: 5",)])
async def test_cve_2025_64763_nothing_follows_a_refused_connect(fields) -> None:
    """Early data, which may be the words of another, are no request (RFC 9931 §8)."""
    async with open_scene(answer(okay()), make=make_strict) as scene:
        got = await scene.ask(connect("10.0.0.1:443", *fields) + b"hello" + SMUGGLED)

    # A CONNECT that says it has content is malformed.
    assert got.startswith(b"HTTP/1.1 400 " if fields else b"HTTP/1.1 403 ")
    assert b"\r\nConnection: close\r\n" in got
    assert got.count(b"HTTP/1.1 ") == 1
    assert not scene.upstream.ends


@pytest.mark.parametrize(
    "framing", ["Content-Length: %d", "Transfer-Encoding: chunked"]
)
async def test_cve_2026_71324_connect_with_content(framing: str) -> None:
    """CONNECT has no content: a 400, and an end before what follows (Traefik, Go)."""
    field = framing.replace("%d", str(len(SMUGGLED)))
    async with open_forward(answer(okay())) as scene:
        wire = connect(f"{HOST}:{scene.upstream.port}", field)
        got = await scene.ask(wire + SMUGGLED + SMUGGLED)

    assert got.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close\r\n" in got
    assert got.count(b"HTTP/1.1 ") == 1
    assert not scene.upstream.ends


async def test_cve_2026_94439_connect_to_a_gateway_ends_the_connection() -> None:
    """No request is read after a CONNECT, whoever answers it (Go, RFC 9931 §8)."""
    got, ends = await ask(answer(okay()), connect("a:443") + SMUGGLED)

    assert got.startswith(b"HTTP/1.1 501 ")
    assert got.count(b"HTTP/1.1 ") == 1
    assert not ends


async def test_cve_2026_55458_hop_by_hop_fields_of_the_101() -> None:
    """The client's 101 has known fields of it only (Caddy, go#80875)."""
    fields = [
        *("Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "X-Internal: 1"),
        *("Transfer-Encoding: chunked", "Content-Length: 5", "Trailer: X"),
        *("Proxy-Connection: x", "Connection: Server", "Server: named"),
    ]

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(switched(*fields, "Sec-WebSocket-Accept: a"))
        await end.receive_all()

    got, _ = await ask(handle, offer())

    assert got == switched("Sec-WebSocket-Accept: a")


async def test_cve_2020_13934_state_ends_with_the_tunnel() -> None:
    """Tunnels leave nothing, and no byte of one comes in another (Tomcat)."""
    async with open_scene(echo) as scene:
        for number in range(20):
            async with scene.client() as client:
                await client.send(offer() + b"number %d" % number)
                await client.stream.send_eof()

                assert await client.receive_all() == switched() + b"NUMBER %d" % number
        await settle()
        counts = scene.server.statistics()

        assert (counts.connections, counts.upgraded) == (0, 0)
        assert scene.proxy.statistics().tunnels == 0
        assert scene.proxy.pool_statistics().in_use == 0


@pytest.mark.parametrize("count", [1, 3])
async def test_cve_2026_130647_pipelined_offer(count: int) -> None:
    """It is answered in its turn, and the proxy lives on (fastify proxy)."""

    async def handle(end: End) -> None:
        asked = 1
        while (got := await end.receive_until(b"\r\n\r\n", asked)) and not end.ended:
            if b"Upgrade: websocket" in got:
                await end.stream.send_all(switched())
                await end.receive_all()
                return
            await end.stream.send_all(okay())
            asked += 1

    async with open_scene(handle) as scene:
        async with scene.client() as client:
            plain = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
            await client.send(plain * count + offer() + b"early")
            await client.receive_until(b"\r\n\r\n", count + 1)
            await settle()
            assert client.received.count(b"HTTP/1.1 200 OK") == count
            assert client.received.endswith(b"okay" + switched())
            assert scene.upstream.received.count(b"early") == 1
            assert bytes(scene.upstream.ends[-1].received).endswith(b"\r\n\r\nearly")
            await client.reset()

        assert (await scene.ask(request())).endswith(b"okay")


@pytest.mark.parametrize(
    "target", ["ws://127.0.0.1:%d/", "http://localhost:%d/", "ws://[::ffff:7f00:1]:%d/"]
)
async def test_cve_2026_126344_offer_passes_the_policy_of_targets(target: str) -> None:
    """An offer is a request like any other: no way round the addresses (hono)."""
    async with open_scene(echo, make=make_strict, http_ports=range(1, 65536)) as scene:
        async with scene.client() as client:
            line = target % scene.upstream.port
            await client.send(offer().replace(b"/chat", line.encode()))
            got = await client.receive_until(b"\r\n\r\n")

    assert got.startswith(b"HTTP/1.1 403 ")
    assert not scene.upstream.ends


async def test_cve_2024_37890_offer_with_many_fields() -> None:
    """Offers have the limits of all requests; the upstream sees none of it (ws)."""
    got, ends = await ask(answer(okay()), offer(*["A: b"] * 2000))

    assert got.startswith(b"HTTP/1.1 431 ")
    assert not ends


async def test_cve_2024_37890_endless_101() -> None:
    """Nor may the upstream's header section be endless: a 502."""

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.stream.send_all(switched()[:-2])
        while True:
            await end.stream.send_all(b"A: b\r\n" * 1000)

    async with open_scene(handle) as scene, scene.client() as client:
        await client.send(offer())
        got = await client.receive_until(b"\r\n\r\n")

    assert got.startswith(b"HTTP/1.1 502 ")


async def test_wstunnel_406_slow_offer() -> None:
    """One deadline from accept to the end of the header section (hyper#3756)."""
    limits = Limits(header_timeout=0.2, linger=0)
    began = trio.current_time()
    async with open_scene(answer(okay()), limits=limits) as scene:
        async with scene.client() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.receive_all)
            try:
                for octet in offer():
                    await client.stream.send_all(bytes([octet]))
                    await trio.sleep(0.03)
            except trio.BrokenResourceError:
                pass

    assert trio.current_time() - began < 2
    assert client.received.startswith(b"HTTP/1.1 408 ") or client.was_reset
    assert not scene.upstream.ends


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


@pytest.mark.parametrize(
    ("value", "shared"),
    [("NTLM TlRM", False), ("negotiate YII=", False), ("Basic YTpi", True)],
)
async def test_rfc_4559_authenticated_connection_is_not_shared(
    value: str, shared: bool
) -> None:
    """Such a server takes all requests of a connection for one user's (RFC 9110 §3.3)."""
    async with open_scene(answer(okay())) as scene:
        await scene.ask(request(f"Authorization: {value}"))
        await scene.ask(request(target="/of-another-client"))

        first = bytes(scene.upstream.ends[0].received)
        assert (b"/of-another-client" in first) == shared
        assert (b"Connection: close\r\n" in first) == (not shared)
        assert b"GET /of-another-client " in scene.upstream.received
