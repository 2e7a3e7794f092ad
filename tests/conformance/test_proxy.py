"""The rules for intermediaries: what a proxy passes on, adds, keeps and refuses."""

from __future__ import annotations

from functools import partial

import pytest

from trio_upgrade.proxy import ForwardProxy

from ..proxy.scenes import HOST, End, answer, okay, open_scene, request, split_head


def make_forward(_url: str, **options) -> ForwardProxy:
    return ForwardProxy(**options)


open_forward = partial(
    open_scene,
    make=make_forward,
    networks=["127.0.0.0/8"],
    ports=range(1, 65536),
    http_ports=range(1, 65536),
)


async def forward(*lines: str) -> tuple[bytes, list[bytes]]:
    """Return the request line and the fields that the upstream gets."""
    async with open_scene(answer(okay())) as scene:
        assert (await scene.ask(request(*lines))).endswith(b"okay")
    first, fields, _ = split_head(scene.upstream.received)
    return first, fields


@pytest.mark.ids("U20")
async def test_informational_responses_are_passed_on() -> None:
    """Each 1xx at once, with its fields (RFC 9110 §15.2)."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await end.send(hint)
        assert client.received or await client.receive_until(hint) == hint
        await end.send(okay())
        await end.receive_all()

    async with open_scene(handle) as scene, scene.client() as client:
        await client.stream.send_all(request())
        assert (await client.receive_all()).startswith(hint + b"HTTP/1.1 200 OK\r\n")


@pytest.mark.ids("U22")
async def test_fields_that_connection_names_are_dropped() -> None:
    """Then Connection itself (RFC 9110 §7.6.1)."""
    _, fields = await forward("Connection: X-a, x-B", "x-A: 1", "X-b: 2", "X-c: 3")

    assert b"X-c: 3" in fields
    assert not [line for line in fields if line.lower()[:4] in (b"x-a:", b"x-b:")]
    assert not [line for line in fields if line.startswith(b"Connection")]


@pytest.mark.ids("U23")
async def test_hop_by_hop_fields_are_dropped_unnamed() -> None:
    """Also where Connection does not name them (RFC 9110 §7.6.1)."""
    _, fields = await forward(
        "Keep-Alive: x", "Proxy-Connection: x", "TE: gzip", "Upgrade: websocket"
    )

    names = {line.partition(b":")[0].lower() for line in fields}
    assert not names & {b"keep-alive", b"proxy-connection", b"te", b"upgrade"}


@pytest.mark.ids("U26")
async def test_loop_ends() -> None:
    """A request that has passed this proxy is refused (RFC 9110 §7.6)."""
    async with open_scene(answer(okay())) as scene:
        got = await scene.ask(request("Via: 1.1 us"))

    assert got.startswith(b"HTTP/1.1 508 ")


@pytest.mark.ids("U27")
async def test_via() -> None:
    """A proxy adds itself both ways, a gateway on requests (RFC 9110 §7.6.3)."""
    _, fields = await forward("Via: 1.0 other")
    async with open_forward(answer(okay())) as scene:
        target = f"http://{HOST}:{scene.upstream.port}/"
        got = await scene.ask(request(target=target))

    assert fields[-2:] == [b"X-Forwarded-Host: x", b"Via: 1.1 us"]
    assert b"Via: 1.0 other" in fields
    assert b"\r\nVia: 1.1 us\r\n" in scene.upstream.received
    assert b"\r\nVia: 1.1 us\r\n" in got


@pytest.mark.ids("U33")
async def test_expectation_goes_on() -> None:
    """The final status comes from the upstream, before the body (RFC 9110 §10.1.1)."""
    async with open_scene(answer(okay(status="413 No"))) as scene:
        got = await scene.ask(
            request("Expect: 100-continue", "Content-Length: 9", method="PUT")
        )

    assert b"\r\nExpect: 100-continue\r\n" in scene.upstream.received
    assert got.startswith(b"HTTP/1.1 413 No\r\n")


@pytest.mark.ids("C04")
async def test_data_of_the_side_that_has_closed_is_delivered() -> None:
    """Then both sides are closed (RFC 9110 §9.3.6)."""

    async def handle(end: End) -> None:
        await end.stream.send_all(b"x" * 100_000)

    async with open_forward(handle) as scene, scene.client() as client:
        authority = f"{HOST}:{scene.upstream.port}"
        await client.send(
            f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
        )
        await client.stream.send_eof()

        assert (await client.receive_all()).endswith(b"\r\n\r\n" + b"x" * 100_000)


@pytest.mark.ids("C05")
@pytest.mark.parametrize("authority", ["8.8.8.8:25", "10.0.0.1:443", "[::1]:443"])
async def test_connect_to_what_is_not_on_the_list(authority: str) -> None:
    """Ports and addresses are restricted unless the user allows more (§9.3.6)."""
    wire = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    async with open_scene(answer(okay()), make=make_forward) as scene:
        assert (await scene.ask(wire)).startswith(b"HTTP/1.1 403 ")


@pytest.mark.ids("C09")
async def test_credentials_for_the_proxy() -> None:
    """A 407 has a challenge, and the upstream gets no credentials (§11.7)."""
    async with open_forward(
        answer(okay()), authenticate=lambda user, _: user == "a"
    ) as scene:
        target = f"http://{HOST}:{scene.upstream.port}/"
        refused = await scene.ask(request(target=target))
        await scene.ask(request("Proxy-Authorization: Basic YTpi", target=target))

    assert refused.startswith(b"HTTP/1.1 407 ")
    assert b"\r\nProxy-Authenticate: Basic realm=" in refused
    assert scene.upstream.received.startswith(b"GET / HTTP/1.1\r\n")
    assert b"YTpi" not in scene.upstream.received


@pytest.mark.ids("M05")
async def test_version_is_our_own() -> None:
    """Both ways, whatever the peers speak (RFC 9112 §2.3)."""
    old = okay().replace(b"HTTP/1.1", b"HTTP/1.0")
    async with open_scene(answer(old)) as scene:
        got = await scene.ask(b"GET / HTTP/1.0\r\n\r\n")

    assert scene.upstream.received.startswith(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:")
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.ids("M11")
async def test_connection_of_http_1_0_ends() -> None:
    """Also if the client asks to keep it (RFC 9112 §9.3)."""
    wire = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    async with open_scene(answer(okay())) as scene:
        got = await scene.ask(wire + wire)

    assert got.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nConnection: close\r\n" in got
