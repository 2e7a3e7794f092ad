"""The forward proxy: tunnels and requests to what its policy allows."""

from __future__ import annotations

import socket
from base64 import b64encode
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from trio_upgrade.proxy import ForwardProxy, TunnelRecord

from .scenes import HOST, End, answer, okay, open_scene, request, settle
from .test_switching import echo, offer, switched

LOOPBACK = ("127.0.0.0/8", "::1/128")
ANY = range(1, 65536)


def make_forward(_url: str, **options: Any) -> ForwardProxy:
    return ForwardProxy(
        **{"networks": LOOPBACK, "ports": ANY, "http_ports": ANY} | options
    )


def make_strict(_url: str, **options: Any) -> ForwardProxy:
    return ForwardProxy(**options)


open_forward = partial(open_scene, make=make_forward)


def connect(authority: str, *lines: str) -> bytes:
    fields = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *lines, "", ""]
    return "\r\n".join(fields).encode()


class Names(trio.abc.HostnameResolver):
    """Resolves names as the test wants."""

    def __init__(self, **names: list[str]) -> None:
        self._names = names
        self.asked: list[str] = []

    async def getaddrinfo(self, host, port, *_args, **_kwargs):
        text = host.decode() if isinstance(host, bytes) else host
        self.asked.append(text)
        found = []
        for address in self._names.get(text.partition(".")[0], []):
            kind = socket.AF_INET6 if ":" in address else socket.AF_INET
            name = (address, port, 0, 0) if ":" in address else (address, port)
            found.append((kind, socket.SOCK_STREAM, 6, "", name))
        if not found:
            raise socket.gaierror(-2, "Name or service not known")
        return found

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
async def names():
    """Resolve ``public``, ``both`` and ``inner`` for this test."""
    resolver = Names(
        public=["8.8.8.8"],
        both=["10.0.0.1", "127.0.0.1"],
        inner=["10.0.0.1"],
        loop=["127.0.0.1"],
        dual=["::1", "127.0.0.1"],
    )
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


async def test_tunnel() -> None:
    """Any bytes go both ways after the 200, and ends are passed on (RFC 9110 §9.3.6)."""
    records: list[TunnelRecord] = []

    async def handle(end: End) -> None:
        await end.send(b"first ")
        await end.receive_all()
        await end.stream.send_all(bytes(end.received).upper())

    async with open_forward(handle, on_tunnel=records.append) as scene:
        async with scene.client() as client:
            # Early bytes are kept until the tunnel is open, and come first.
            await client.send(connect(f"{HOST}:{scene.upstream.port}") + b"early ")
            await client.send(b"late")
            await client.stream.send_eof()
            got = await client.receive_all()
        await settle()

    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\nfirst EARLY LATE")
    (record,) = records
    assert (record.protocol, record.from_client, record.from_upstream) == (
        "CONNECT",
        10,
        16,
    )
    assert (record.ended_by, record.cause) == ("client", "eof")


@pytest.mark.ids("C04")
async def test_one_side_closes() -> None:
    """Its outstanding data is delivered, then both are closed (RFC 9110 §9.3.6)."""

    async def handle(end: End) -> None:
        await end.stream.send_all(b"x" * 100_000)

    async with open_forward(handle) as scene, scene.client() as client:
        await client.send(connect(f"{HOST}:{scene.upstream.port}"))
        got = await client.receive_all()

    assert got.endswith(b"\r\n\r\n" + b"x" * 100_000)


@pytest.mark.parametrize("side", ["client", "upstream"])
async def test_reset_of_a_tunnel(side: str) -> None:
    """A reset of one side resets the other."""
    ready = trio.Event()

    async def handle(end: End) -> None:
        await ready.wait()
        await (end.reset() if side == "upstream" else end.receive_all())

    async with open_forward(handle) as scene:
        async with scene.client() as client:
            await client.send(connect(f"{HOST}:{scene.upstream.port}"))
            await client.receive_until(b"\r\n\r\n")
            ready.set()
            if side == "client":
                await client.reset()
            else:
                await client.receive_all()
                assert client.was_reset
            await settle()
        assert side == "upstream" or scene.upstream.ends[0].was_reset


async def test_idle_tunnel_is_reset() -> None:
    """After tunnel_idle_timeout both sides see a cut."""

    async def hold(end: End) -> None:
        await end.receive_all()

    async with open_forward(hold, tunnel_idle_timeout=0.05) as scene:
        async with scene.client() as client:
            await client.send(connect(f"{HOST}:{scene.upstream.port}"))
            await client.receive_all()
            await settle()

            assert client.was_reset
            assert scene.upstream.ends[0].was_reset


@pytest.mark.ids("U27", "M17", "C09")
async def test_request_with_an_absolute_target() -> None:
    """It goes on in origin-form, with the target's Host; both ways get a Via (§7.6.3)."""
    async with open_forward(answer(okay())) as scene:
        target = f"http://{HOST}:{scene.upstream.port}/a?b"
        got = await scene.ask(
            request(
                "Proxy-Authorization: Basic YTpi", "X-Forwarded-For: 1", target=target
            )
        )

    assert b"\r\nVia: 1.1 us\r\n" in got
    assert (
        scene.upstream.received
        == (
            f"GET /a?b HTTP/1.1\r\nHost: {HOST}:{scene.upstream.port}\r\n"
            "X-Forwarded-For: 1\r\nVia: 1.1 us\r\n\r\n"
        ).encode()
    )


async def test_connections_are_kept() -> None:
    """The connection to a target is used again, until the idle ones are closed."""
    async with open_forward(answer(okay())) as scene:
        target = f"http://{HOST}:{scene.upstream.port}/"
        for _ in range(2):
            assert (await scene.ask(request(target=target))).endswith(b"okay")
        assert scene.proxy.pool_statistics().idle == 1
        await scene.proxy.close_idle()
        assert scene.proxy.pool_statistics().idle == 0

    assert len(scene.upstream.ends) == 1


async def test_upgrade_with_an_absolute_target() -> None:
    """A WebSocket client that does not tunnel sends its offer so (RFC 6455 §4.1)."""
    async with open_forward(echo) as scene, scene.client() as client:
        wire = offer().replace(
            b"/chat", f"ws://{HOST}:{scene.upstream.port}/chat".encode()
        )
        await client.send(wire + b"hi")
        await client.stream.send_eof()

        assert await client.receive_all() == switched() + b"HI"


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (request(), b"400 "),
        (request(target="*", method="OPTIONS"), b"400 "),
        (request("Via: 1.1 us", target="http://a/"), b"508 "),
        (request("Max-Forwards: 0", target="http://a/", method="TRACE"), b"501 "),
        (connect("a:443", "Via: 1.1 us"), b"508 "),
    ],
)
async def test_other_requests(wire: bytes, status: bytes) -> None:
    """What is no request to a proxy, or may go no further, is refused."""
    async with open_forward(answer(okay())) as scene:
        assert (await scene.ask(wire)).startswith(b"HTTP/1.1 " + status)
        assert scene.proxy.statistics().refused == 1


@pytest.mark.ids("C05")
@pytest.mark.parametrize(
    "wire",
    [
        connect("8.8.8.8:25"),
        connect("8.8.8.8:80"),
        request(target="http://8.8.8.8:443/"),
        request(target="http://8.8.8.8:6379/"),
    ],
)
async def test_ports(wire: bytes) -> None:
    """Only the ports on the list, another one for each kind (RFC 9110 §9.3.6)."""
    async with open_scene(answer(okay()), make=make_strict) as scene:
        got = await scene.ask(wire)

    assert got.startswith(b"HTTP/1.1 403 ")
    assert b"Connection: close" in got


HOSTS = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "169.254.169.254",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.0.0.1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[64:ff9b::7f00:1]",
    "[fe80::1]",
    "[fd00::1]",
    "2130706433",
    "0x7f.1",
    "127.1",
    "0",
    "0177.0.0.1",
    "[::127.0.0.1]",
    "[64:ff9b:1::7f00:1]",
    "[64:ff9b:1:7f00:0:100:808:808]",
    "[::ffff:0:7f00:1]",
    "localhost",
]


@pytest.mark.ids("C05")
@pytest.mark.parametrize("host", HOSTS)
async def test_addresses_that_are_not_public(host: str) -> None:
    """Whatever form names them, tunnels and requests get a 403 that names no address."""
    async with open_scene(
        answer(okay()), make=make_strict, ports=ANY, http_ports=ANY
    ) as scene:
        port = scene.upstream.port
        tunnel = await scene.ask(connect(f"{host}:{port}"))
        plain = await scene.ask(request(target=f"http://{host}:{port}/"))

    for got in (tunnel, plain):
        assert got.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 502 "))
        assert b"okay" not in got
        assert got.endswith((b"this target is not allowed\n", b"cannot be reached\n"))
    assert not scene.upstream.ends


async def test_refused_networks(names: Names) -> None:
    """They are refused whatever else is allowed."""
    async with open_forward(answer(okay()), refused=["127.0.0.0/9"]) as scene:
        got = await scene.ask(connect(f"loop:{scene.upstream.port}"))

    assert got.startswith(b"HTTP/1.1 403 ")
    assert not scene.upstream.ends


@pytest.mark.parametrize("host", ["loop", "both", "dual"])
async def test_the_address_that_was_judged_is_dialled(names: Names, host: str) -> None:
    """The name is resolved once; addresses that are refused are left out."""
    async with open_forward(echo) as scene, scene.client() as client:
        await client.send(connect(f"{host}:{scene.upstream.port}"))
        got = await client.receive_until(b"\r\n\r\n")

        assert got.startswith(b"HTTP/1.1 200 ")
    assert names.asked.count(host) == 1
    assert [*filter(str.isalpha, names.asked)] == [host]


async def test_request_tries_the_next_address(names: Names) -> None:
    """Nothing listens at the first one."""
    async with open_forward(answer(okay())) as scene:
        got = await scene.ask(request(target=f"http://dual:{scene.upstream.port}/"))

        assert got.endswith(b"okay")
    assert names.asked.count("dual") == 1


@pytest.mark.parametrize(
    ("upgrade", "response_timeout", "status"),
    [(False, 5, b"200"), (True, None, b"101"), (True, 0.05, b"504")],
)
async def test_request_tries_the_next_address_after_a_silent_one(
    names: Names, upgrade: bool, response_timeout: float | None, status: bytes
) -> None:
    """It cannot be reached either; but there is a limit to the time of all."""
    async with open_forward(
        answer(switched() if upgrade else okay()),
        connect_timeout=0.25,
        response_timeout=response_timeout,
    ) as scene:
        with socket.socket(socket.AF_INET6) as silent:
            # The queue is full of connections that nobody takes.
            silent.bind(("::1", scene.upstream.port))
            silent.listen(0)
            with socket.create_connection(("::1", scene.upstream.port)):
                target = f"http://dual:{scene.upstream.port}/"
                wire = request(target=target)
                if upgrade:
                    wire = offer().replace(b"GET /", b"GET " + target.encode())
                async with scene.client() as client:
                    await client.send(wire)
                    got = await client.receive_until(b"\r\n\r\n")

    assert got.startswith(b"HTTP/1.1 " + status)


async def test_name_without_an_address_that_is_allowed(names: Names) -> None:
    """A 403, which does not say whether the name exists inside."""
    async with open_forward(answer(okay())) as scene:
        got = await scene.ask(connect("inner:443"))

    assert got.startswith(b"HTTP/1.1 403 ")
    assert b"10.0.0.1" not in got


@pytest.mark.parametrize("wire", [connect("none:443"), request(target="http://none/")])
async def test_name_that_is_not_found(names: Names, wire: bytes) -> None:
    """A 502 without the reason of the resolver."""
    async with open_forward(answer(okay())) as scene:
        got = await scene.ask(wire)

    assert got.startswith(b"HTTP/1.1 502 ")
    assert got.endswith(b"the upstream cannot be reached\n")


@pytest.mark.parametrize(
    "wire",
    [
        connect("127.0.0.1:1"),
        request(target="http://127.0.0.1:1/"),
    ],
)
async def test_target_that_refuses_connections(wire: bytes) -> None:
    """A 502 for both kinds."""
    async with open_forward(answer(okay())) as scene:
        assert (await scene.ask(wire)).startswith(b"HTTP/1.1 502 ")
        assert scene.proxy.statistics().failures == 1


@pytest.mark.parametrize("wire", [connect("slow:443"), request(target="http://slow/")])
async def test_target_that_takes_too_long(wire: bytes) -> None:
    """A 504; resolving counts."""

    class Slow(Names):
        async def getaddrinfo(self, *args, **kwargs):
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Slow())
    async with open_forward(answer(okay()), connect_timeout=0.05) as scene:
        got = await scene.ask(wire)

    assert got.startswith(b"HTTP/1.1 504 ")


async def test_tunnel_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 504; connecting counts."""

    async def hang(*_args: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("trio_upgrade._proxy.forward.dial", hang)
    async with open_forward(answer(okay()), connect_timeout=0.05) as scene:
        got = await scene.ask(connect("127.0.0.1:443"))

    assert got.startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize("kind", ["tunnel", "plain"])
async def test_own_listener_is_refused(kind: str) -> None:
    """A request to the proxy itself would go round (RFC 9110 §7.6)."""
    async with open_forward(answer(okay())) as scene:
        for host in (HOST, "0.0.0.0", "[::ffff:127.0.0.1]", "localhost"):
            authority = f"{host}:{scene.port}"
            wire = connect(authority)
            if kind == "plain":
                wire = request(target=f"http://{authority}/")
            got = await scene.ask(wire)

            assert got.startswith(b"HTTP/1.1 403 "), host


AUTHORIZED = "Proxy-Authorization: Basic " + b64encode(b"me:secret").decode()


def check_me(user: str, password: str) -> bool:
    return (user, password) == ("me", "secret")


@pytest.mark.ids("C09")
@pytest.mark.parametrize(
    "field", ["X: 1", "Proxy-Authorization: Basic eDp5", "Authorization: Basic x"]
)
async def test_407(field: str) -> None:
    """Without the right credentials nothing is said about targets (RFC 9110 §15.5.8)."""
    async with open_forward(
        answer(okay()), authenticate=check_me, realm="lab"
    ) as scene:
        tunnel = await scene.ask(connect("10.0.0.1:1", field))
        plain = await scene.ask(request(field, target="http://10.0.0.1:1/"))

    for got in (tunnel, plain):
        assert got.startswith(b"HTTP/1.1 407 Proxy Authentication Required\r\n")
        assert b'\r\nProxy-Authenticate: Basic realm="lab", charset="UTF-8"\r\n' in got


@pytest.mark.ids("C09")
async def test_credentials_are_for_the_proxy() -> None:
    """The upstream never sees them (RFC 9110 §11.7.2)."""
    async with open_forward(answer(okay()), authenticate=check_me) as scene:
        target = f"http://{HOST}:{scene.upstream.port}/"
        plain = await scene.ask(request(AUTHORIZED, target=target))
        async with scene.client() as client:
            await client.send(connect(target[7:-1], AUTHORIZED))
            tunnel = await client.receive_until(b"\r\n\r\n")

    assert plain.endswith(b"okay")
    assert tunnel.startswith(b"HTTP/1.1 200 ")
    assert b"Proxy-" not in scene.upstream.received


async def test_client_gone_while_a_name_is_resolved() -> None:
    """Nothing is dialled for it."""

    class Waiting(Names):
        cancelled = trio.Event()

        async def getaddrinfo(self, *args, **kwargs):
            try:
                await trio.sleep_forever()
            finally:
                self.cancelled.set()

    resolver = Waiting()
    trio.socket.set_custom_hostname_resolver(resolver)
    async with open_forward(answer(okay())) as scene:
        for wire in (connect("a:443"), request(target="http://a/")):
            resolver.cancelled = trio.Event()
            async with scene.client() as client:
                await client.send(wire)
                await client.reset()
            # By the client's leaving, and not by the end of the proxy.
            with trio.fail_after(5):
                await resolver.cancelled.wait()
            await settle()


async def test_drain_resets_tunnels() -> None:
    """Cancelled: both sides are reset, as half a transfer must not look whole."""
    async with open_forward(echo) as scene, scene.client() as client:
        await client.send(connect(f"{HOST}:{scene.upstream.port}"))
        await client.receive_until(b"\r\n\r\n")
        await scene.server.drain(grace=0.05)
        await client.receive_all()

        assert client.was_reset


async def test_tls_target_is_not_for_requests() -> None:
    """A proxy does not speak TLS for its clients: they use CONNECT."""
    request_: Any = type("R", (), {})()
    proxy = ForwardProxy(name="us")
    from trio_upgrade import Headers

    request_.headers, request_.method = Headers(), "GET"
    request_.target = "https://a/"
    response = await proxy(request_)

    assert response is not None
    assert response.status == 501


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"networks": "10.0.0.0/8"}, TypeError),
        ({"networks": ["10.0.0.1/8"]}, ValueError),
        ({"realm": 'a"'}, ValueError),
        ({"name": "a b"}, ValueError),
        ({"upgrades": ["h2c"]}, ValueError),
    ],
)
def test_arguments(options: dict[str, Any], error: type[Exception]) -> None:
    """They are checked when the proxy is made."""
    with pytest.raises(error):
        ForwardProxy(**options)
