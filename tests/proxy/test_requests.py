"""Ordinary requests through a reverse proxy: what the upstream gets and the client."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from trio_upgrade import Limits
from trio_upgrade.proxy import ReverseProxy
from trio_upgrade.testing import split_points

from ..wire import DATE
from .scenes import End, answer, okay, open_scene, request, settle, split_head

FORWARDED = [
    b"X-Forwarded-For: 127.0.0.1",
    b"X-Forwarded-Proto: http",
    b"X-Forwarded-Host: x",
]
VIA = b"Via: 1.1 us"


@pytest.mark.ids("U22", "U27", "M05")
async def test_target_and_fields_octet_by_octet() -> None:
    """Order, case, repetition and obs-text stay; the version is ours (RFC 9112 §2.3)."""
    async with open_scene(answer(okay())) as scene:
        await scene.ask(
            request(
                "X-b: 1",
                "x-B: 2, 3",
                "coOkie: caf\xe9=\xff",
                "Empty:",
                "Keep-Alive: timeout=5",
                "X-a: 4",
                target="//a//../b%2f%zz?x=%00&&y",
            )
        )

    first, fields, rest = split_head(scene.upstream.received)

    assert first == b"GET //a//../b%2f%zz?x=%00&&y HTTP/1.1"
    assert fields == [
        b"Host: x",
        b"X-b: 1",
        b"x-B: 2, 3",
        b"coOkie: caf\xe9=\xff",
        b"Empty: ",
        b"X-a: 4",
        *FORWARDED,
        VIA,
    ]
    assert rest == b""


@pytest.mark.parametrize(
    ("target", "sent", "host"),
    [
        ("/?", "/?", b"x"),
        ("http://Y.example:81/a?b", "/a?b", b"y.example:81"),
        ("http://y", "/", b"y"),
        ("http://y?q", "/?q", b"y"),
        ("ws://y/a", "/a", b"y"),
    ],
)
@pytest.mark.ids("M17")
async def test_target_forms(target: str, sent: str, host: bytes) -> None:
    """An absolute target's authority becomes Host (RFC 9112 §3.2.2)."""
    async with open_scene(answer(okay())) as scene:
        await scene.ask(request(target=target))

    first, fields, _ = split_head(scene.upstream.received)

    assert first == f"GET {sent} HTTP/1.1".encode()
    assert fields[0] == b"Host: " + host


@pytest.mark.parametrize(
    ("target", "sent"), [("*", "*"), ("http://y", "*"), ("http://y/", "/")]
)
async def test_options(target: str, sent: str) -> None:
    """OPTIONS * goes on in asterisk-form (RFC 9112 §3.2.4)."""
    async with open_scene(answer(okay())) as scene:
        await scene.ask(request(method="OPTIONS", target=target))

    assert scene.upstream.received.startswith(f"OPTIONS {sent} HTTP/1.1".encode())


BODIES = [
    (request("Content-Length: 5", method="POST", body=b"hello"), b"\r\n\r\nhello"),
    (
        request(
            "Transfer-Encoding: chunked",
            method="PUT",
            body=b"5;x=1\r\nhello\r\n0\r\n\r\n",
        ),
        b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (request("Content-Length: 0", method="POST"), b"\r\n\r\n"),
    (request(method="POST"), b"\r\n\r\n"),
    (request(method="DELETE"), b"\r\n\r\n"),
]


@pytest.mark.parametrize(("wire", "body"), BODIES)
async def test_exactly_one_framing(wire: bytes, body: bytes) -> None:
    """One Content-Length or chunked, whatever came (RFC 9112 §6)."""
    end = body[-5:]
    async with open_scene(answer(okay(), until=end)) as scene:
        got = await scene.ask(wire)

    head, blank, content = scene.upstream.received.partition(b"\r\n\r\n")
    framings = head.lower().count(b"content-length") + head.count(b"chunked")

    assert blank + content == body
    assert framings == (0 if wire.startswith(b"DELETE") else 1)
    assert got.endswith(b"okay")


@pytest.mark.ids("U20")
async def test_everything_at_every_split() -> None:
    """However both sides cut their bytes, the messages are the same."""
    wire = request(
        "Transfer-Encoding: chunked",
        "TE: trailers",
        "Trailer: X-Sum",
        method="POST",
        body=b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nHost: no\r\n\r\n",
    )
    back = (
        b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n"
        b"Connection: close\r\n\r\n"
        b"4\r\nokay\r\n0\r\nX-End: 2\r\n\r\n"
    )
    end = b"X-Sum: 1\r\n\r\n"
    packets: tuple[bytes, ...] = ()

    async def handle(conn: End) -> None:
        await conn.receive_until(end)
        await conn.send(*packets)

    async with open_scene(handle) as scene:
        for cut in [*split_points(wire)][::7]:
            packets = (back,)
            check_everything(await scene.ask(*cut), scene.upstream.ends.pop())
        for cut in split_points(back):
            packets = cut
            check_everything(await scene.ask(wire), scene.upstream.ends.pop())


def check_everything(got: bytes, upstream: End) -> None:
    first, fields, body = split_head(bytes(upstream.received))

    assert first == b"POST / HTTP/1.1"
    assert fields[:2] == [b"Host: x", b"Trailer: X-Sum"]
    assert b"TE: trailers" in fields
    assert b"Connection: TE" in fields
    assert body == b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
    hint, blank, rest = got.partition(b"\r\n\r\n")
    assert hint + blank == b"HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"
    first, fields, body = split_head(rest)
    assert first == b"HTTP/1.1 200 OK"
    assert fields[:2] == [DATE.strip(), b"Trailer: X-End"]
    assert b"Transfer-Encoding: chunked" in fields
    assert body.endswith(b"0\r\nX-End: 2\r\n\r\n")
    assert body.count(b"okay") or body.count(b"\r\n") > 5


ANSWERS = [
    okay("Set-Cookie: a", "set-cookie: b", "X-Obs: \xe9"),
    okay(status="404 Nicht da"),
    okay(status="299 "),
    b"HTTP/1.1 204 No Content\r\nX: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n",
    b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    (
        b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 3\r\nUpgrade: x\r\n"
        b"Connection: Upgrade\r\n\r\nnow"
    ),
    b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 3\r\n\r\nnow",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
]


@pytest.mark.parametrize("wire", ANSWERS)
async def test_answers_through_the_proxy_are_as_straight(wire: bytes) -> None:
    """The client gets the status line's parts, the fields and the body as they came."""
    for packets in [*split_points(wire)][::9]:
        async with open_scene(answer(*packets)) as scene:
            got = await scene.ask(request())

        version_and_status, _, reason = split_head(wire)[0].partition(b" ")
        first, fields, body = split_head(got)
        expected = [
            line for line in split_head(wire)[1] if not line.startswith(b"Connection")
        ]

        assert version_and_status.startswith(b"HTTP/1.")
        assert first.rstrip() == b"HTTP/1.1 " + (
            reason if reason.strip() != b"299" else b"299 Unknown"
        )
        assert {line.lower() for line in expected} <= {line.lower() for line in fields}
        assert [line for line in fields if line in expected].__len__() <= len(expected)
        assert body == split_head(wire)[2]


@pytest.mark.parametrize("end", [True, False])
async def test_head_has_the_length_of_the_get(end: bool) -> None:
    """An answer to HEAD keeps its Content-Length (RFC 9110 §9.3.2)."""
    wire = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    async with open_scene(answer(wire)) as scene:
        first, fields, body = split_head(await scene.ask(request(method="HEAD")))

    assert first == b"HTTP/1.1 200 OK"
    assert b"Content-Length: 99" in fields
    assert body == b""


UNTIL_END = b"HTTP/1.1 200 OK\r\nX: 1\r\n\r\nall of it"


async def test_answer_until_the_end_becomes_chunked() -> None:
    """The client can tell the end from a cut (RFC 9112 §6.3)."""
    async with open_scene(answer(UNTIL_END, then="end")) as scene:
        _, fields, body = split_head(await scene.ask(request()))

    assert b"Transfer-Encoding: chunked" in fields
    assert body == b"9\r\nall of it\r\n0\r\n\r\n"


@pytest.mark.ids("M11")
async def test_answer_until_the_end_to_http_1_0() -> None:
    """HTTP/1.0 knows no chunks, and no persistent connection to a proxy (§9.3)."""
    async with open_scene(answer(UNTIL_END, then="end")) as scene:
        got = await scene.ask(
            b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n"
        )
        _, fields, body = split_head(got)

    assert b"Connection: close" in fields
    assert b"Transfer-Encoding: chunked" not in fields
    assert body == b"all of it"
    first, fields, _ = split_head(scene.upstream.received)
    assert first == b"GET / HTTP/1.1"
    assert fields[0] == f"Host: 127.0.0.1:{scene.upstream.port}".encode()
    assert b"Via: 1.0 us" in fields
    assert not [line for line in fields if line.startswith(b"Expect")]


@pytest.mark.ids("U33")
async def test_100_comes_from_the_upstream() -> None:
    """The client sends its body when the upstream wants it (RFC 9110 §10.1.1)."""
    head = request("Expect: 100-continue", "Content-Length: 4", method="POST")

    async def handle(end: End) -> None:
        await end.receive_until(b"\r\n\r\n")
        await settle()
        assert not client.received
        await end.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await end.receive_until(b"body")
        await end.send(okay())

    async with open_scene(handle) as scene, scene.client() as client:
        await client.stream.send_all(head)
        await client.receive_until(b"\r\n\r\n")

        assert client.received == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"body")
        assert (await client.receive_all()).endswith(b"okay")


async def test_final_status_in_place_of_the_100() -> None:
    """No 100 is sent, the body is not asked for, and the connection ends (§10.1.1)."""
    head = request("Expect: 100-continue", "Content-Length: 4", method="POST")
    async with open_scene(answer(okay(status="413 Too Large"))) as scene:
        got = await scene.ask(head)

    assert got.startswith(b"HTTP/1.1 413 Too Large\r\n")
    assert b"Connection: close" in got


async def test_answer_before_the_end_of_the_body() -> None:
    """It goes on at once, and the rest of the body is not sent (RFC 9112 §9.5)."""
    refusal = okay(status="413 Content Too Large")
    async with open_scene(answer(refusal)) as scene, scene.client() as client:
        await client.send(request("Content-Length: 8", method="POST", body=b"half"))
        got = await client.receive_until(b"okay")
        await settle()

        assert got.startswith(b"HTTP/1.1 413 ")
        assert scene.upstream.received.endswith(b"\r\n\r\nhalf")
        assert scene.upstream.ends[0].ended or scene.upstream.ends[0].was_reset
        assert scene.proxy.pool_statistics().idle == 0


async def test_connection_to_the_upstream_is_used_again() -> None:
    """Clients of one proxy share its connections, one after the other."""
    async with open_scene(answer(okay())) as scene:
        for _ in range(3):
            assert (await scene.ask(request())).endswith(b"okay")
        assert scene.proxy.pool_statistics().idle == 1
        await scene.proxy.close_idle()
        assert scene.proxy.pool_statistics().idle == 0

    assert len(scene.upstream.ends) == 1


@pytest.mark.ids("U26")
async def test_loop_is_refused() -> None:
    """A request that has passed this proxy goes in a loop (RFC 9110 §7.6)."""
    async with open_scene(answer(okay())) as scene:
        got = await scene.ask(request("Via: 1.1 a, 1.1 us"))

        assert got.startswith(b"HTTP/1.1 508 ")
        assert scene.proxy.statistics().refused == 1
    assert not scene.upstream.ends


@pytest.mark.parametrize(
    ("method", "left", "status", "sent"),
    [
        ("OPTIONS", "0", b"204", None),
        ("TRACE", "00", b"501", None),
        ("OPTIONS", "3", b"200", b"2"),
        ("OPTIONS", "x", b"200", b"x"),
        ("GET", "0", b"200", b"0"),
    ],
)
async def test_max_forwards(method: str, left: str, status: bytes, sent) -> None:
    """OPTIONS and TRACE go over so many proxies at most (RFC 9110 §7.6.2)."""
    async with open_scene(answer(okay())) as scene:
        got = await scene.ask(request(f"Max-Forwards: {left}", method=method))

    assert got.startswith(b"HTTP/1.1 " + status)
    fields = split_head(scene.upstream.received)[1]
    assert [line for line in fields if line.startswith(b"Max")] == (
        [] if sent is None else [b"Max-Forwards: " + sent]
    )


async def test_connect_is_not_for_a_reverse_proxy() -> None:
    """A gateway opens no tunnels, and ends the connection (RFC 9931 §8)."""
    async with open_scene(answer(okay())) as scene:
        got = await scene.ask(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")

    assert got.startswith(b"HTTP/1.1 501 ")
    assert not scene.upstream.ends


async def test_rewrite_and_modify_response() -> None:
    """Both get the request and what is about to be sent, and return what is sent."""

    def rewrite(incoming, outgoing):
        assert incoming.path == "/old"
        return outgoing._replace(
            target="/new", headers=outgoing.headers.replaced("Host", "inner")
        )

    def modify(incoming, head):
        return head._replace(
            status=203, reason="Changed", headers=head.headers.without("Server")
        )

    async with open_scene(
        answer(okay("Server: secret")), rewrite=rewrite, modify_response=modify
    ) as scene:
        first, fields, body = split_head(await scene.ask(request(target="/old")))

    assert scene.upstream.received.startswith(b"GET /new HTTP/1.1\r\nHost: inner\r\n")
    assert (first, body) == (b"HTTP/1.1 203 Changed", b"okay")
    assert b"Server: secret" not in fields


async def test_modify_response_makes_a_304() -> None:
    """It has no content, whether that came with the head or not (RFC 9110 §15.4.5)."""

    def modify(_request, head):
        return head._replace(status=304, reason="")

    whole = okay("ETag: x")
    for packets in [whole], [whole[:-4], whole[-4:]]:
        async with open_scene(answer(*packets), modify_response=modify) as scene:
            first, fields, body = split_head(await scene.ask(request()))

        assert (first, body) == (b"HTTP/1.1 304 Not Modified", b"")
        assert b"ETag: x" in fields


async def test_modify_response_adds_a_length_to_a_broken_answer() -> None:
    """The upstream's fault is a 502, never a 400 (RFC 9110 §15.6.3)."""

    def modify(_request, head):
        return head._replace(headers=head.headers.replaced("Content-Length", "4"))

    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    async with open_scene(answer(broken), modify_response=modify) as scene:
        first, _, body = split_head(await scene.ask(request()))

        assert first == b"HTTP/1.1 502 Bad Gateway"
        assert body == b"the upstream broke off its answer\n"
        assert scene.proxy.statistics().failures == 1


@pytest.mark.parametrize("is_async", [False, True])
async def test_upstream_is_chosen(is_async: bool) -> None:
    """A function, sync or async, names the upstream of each request."""

    def make(url: str, **options):
        async def choose_later(incoming):
            return url

        choose = choose_later if is_async else (lambda incoming: url)
        return ReverseProxy(choose, **options)

    async with open_scene(answer(okay()), make=make) as scene:
        assert (await scene.ask(request())).endswith(b"okay")


async def test_credentials_of_the_url_go_to_the_upstream_only() -> None:
    """They replace the client's own (RFC 7617)."""

    def make(url: str, **options):
        return ReverseProxy(url.replace("//", "//u:p@"), **options)

    async with open_scene(answer(okay()), make=make) as scene:
        got = await scene.ask(request("Authorization: Basic bWU6aWQ="))

    fields = split_head(scene.upstream.received)[1]

    assert b"Authorization: Basic dTpw" in fields
    assert b"bWU6aWQ=" not in scene.upstream.received
    assert b"dTpw" not in got


async def test_streamed_both_ways_with_bounded_memory() -> None:
    """A side that does not read stops the other one (no unbounded buffer)."""
    sent = 0

    async def handle(end: End) -> None:
        nonlocal sent
        await end.receive_until(b"\r\n\r\n")
        await end.stream.send_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
        )
        with trio.move_on_after(1):
            while True:
                await end.stream.send_all(bytes(65536))
                sent += 65536

    async with open_scene(handle) as scene, scene.client() as client:
        await client.stream.send_all(request())
        await trio.sleep(1)

    assert 0 < sent < 30_000_000


async def test_limits_for_the_upstream() -> None:
    """An answer over the limits of the options is a 502."""

    def make(url: str, **options):
        return ReverseProxy(url, limits=Limits(header_bytes=1000), **options)

    async with open_scene(answer(okay(f"X: {'a' * 5000}")), make=make) as scene:
        assert (await scene.ask(request())).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("upstream", "options", "message"),
    [
        (8000, {}, "an upstream must be a URL or a function, not int"),
        (None, {}, "an upstream must be a URL or a function, not NoneType"),
        ("http://x", {"rewrite": "x"}, "rewrite must be a function, not str"),
        ("http://x", {"modify_response": 1}, "modify_response must be a function"),
        ("http://x", {"on_error": 1}, "on_error must be a function"),
        ("http://x", {"on_tunnel": 3}, "on_tunnel must be a function"),
    ],
)
def test_arguments(upstream: Any, options: dict[str, Any], message: str) -> None:
    """They are checked when the proxy is made, not at the first request."""
    with pytest.raises(TypeError, match=message):
        ReverseProxy(upstream, **options)
