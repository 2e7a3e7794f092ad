"""Which carrier a client takes, which failures it passes, and what leaves its block."""

from __future__ import annotations

import inspect
import logging
import sys
from functools import partial
from itertools import product

import pytest
import trio
import trio.testing

from trio_upgrade import (
    DialOptions,
    Limits,
    OpenError,
    PeerGone,
    Refused,
    Tunnel,
    TunnelRefused,
    relay,
    serve_ssl_over_tcp,
    serve_tcp,
    serve_unix,
    stream_scope,
)
from trio_upgrade._carrier.names import find_authority, find_credentials
from trio_upgrade.carrier import open_carrier

from ..cancelling import CancelAtStep
from ..tls import make_tls_contexts
from .scenes import (
    CARRIERS,
    CONNECT,
    HOST,
    UPGRADE,
    Carriers,
    Far,
    linked,
    read_all,
    refuse,
    stay_silent,
)

PASSED = [400, 404, 405, 426, 501, 502]
FINAL = [200, 302, 401, 403, 407, 500, 503, 504]
OTHER_101 = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
# What a peer may send instead of an answer, with the word for it.
BROKEN = {
    "nothing": (b"", "went away|ended|broke"),
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP"),
    "another switch": (OTHER_101 + b"Upgrade: other\r\n\r\n", "illegal 101|not HTTP"),
}


async def ask(url: str, **options) -> bytes:
    """Send through a carrier and half-close; return what comes back."""
    async with open_carrier(url, "ssh", **options) as stream:
        await stream.send_all(b"hello")
        await stream.send_eof()
        return await read_all(stream)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_each_carrier(nursery, carrier, caplog) -> None:
    """Bytes and both ends go through each; those before it were tried first."""
    caplog.set_level(logging.DEBUG, "trio_upgrade.carrier")
    carriers = Carriers()
    carriers.allow_only(carrier)
    url = await carriers.start(nursery)

    assert await ask(url) == b"hello"
    assert carriers.tried == [*CARRIERS[: CARRIERS.index(carrier) + 1]]
    assert len(caplog.records) == len(carriers.tried) - 1
    await carriers.server.drain(5)


async def test_nothing_blocked(nursery) -> None:
    """The first carrier is the one without frames."""
    carriers = Carriers()
    url = await carriers.start(nursery)

    assert await ask(url) == b"hello"
    assert carriers.tried == [UPGRADE]
    await carriers.server.drain(5)


@pytest.mark.parametrize("status", PASSED)
async def test_status_that_is_passed(nursery, status) -> None:
    """After these the next carrier is tried; if all fail, each cause is a note."""
    carriers = Carriers()
    carriers.allow_only(CONNECT, status)
    url = await carriers.start(nursery)

    assert await ask(url) == b"hello"
    assert carriers.tried == [*CARRIERS]
    carriers.blocked[CONNECT] = refuse(status)
    with pytest.raises(OpenError) as caught:
        await ask(url)
    assert str(caught.value) == f"{url}: no carrier gets through"
    assert [note.partition(":")[0] for note in caught.value.__notes__] == [*CARRIERS]
    assert all(str(status) in note for note in caught.value.__notes__)
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert all(isinstance(exc, Refused) for exc in group.exceptions)
    await carriers.server.drain(5)


@pytest.mark.parametrize(
    ("status", "carrier"),
    # To a CONNECT, any 2xx is a tunnel.
    [pair for pair in product(FINAL, CARRIERS) if pair != (200, CONNECT)],
)
async def test_status_that_is_final(nursery, status, carrier) -> None:
    """These are the answer to all carriers; the causes before are notes."""
    carriers = Carriers()
    carriers.allow_only("none")
    carriers.blocked[carrier] = refuse(status)
    url = await carriers.start(nursery)
    with pytest.raises(Refused) as caught:
        await ask(url)

    before = CARRIERS.index(carrier)
    assert caught.value.response.status == status
    assert carriers.tried == [*CARRIERS[: before + 1]]
    assert len(getattr(caught.value, "__notes__", [])) == before
    await carriers.server.drain(5)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_answer_that_is_broken(nursery, kind, count) -> None:
    """An end, other bytes than HTTP and an illegal switch are passed."""
    answer, words = BROKEN[kind]
    carriers = Carriers()
    url = await carriers.start(nursery)
    port = int(url.rpartition(":")[2].partition("/")[0])
    left = count

    async def middlebox(stream) -> None:
        nonlocal left
        async with stream:
            left -= 1
            if left < 0:
                async with stream_scope(await trio.open_tcp_stream(HOST, port)) as up:
                    await relay(stream, up)
                return
            await stream.receive_some()
            if answer:
                await stream.send_all(answer)
                await trio.sleep(0.05)

    listeners = await nursery.start(partial(trio.serve_tcp, middlebox, 0, host=HOST))
    url = f"http://{HOST}:{listeners[0].socket.getsockname()[1]}/"
    if count < 3:
        assert await ask(url) == b"hello"
        assert carriers.tried == [CARRIERS[count]]
    else:
        with pytest.raises(OpenError, match="no carrier") as caught:
            await ask(url)
        assert len(caught.value.__notes__) == 3
        for note in caught.value.__notes__:
            assert any(word in note for word in words.split("|")), note
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_no_answer(nursery, count, autojump_clock) -> None:
    """A carrier that gets no answer has attempt_timeout; the session has no limit."""
    carriers = Carriers()
    carriers.blocked = dict.fromkeys(CARRIERS[:count], stay_silent)
    url = await carriers.start(nursery)
    began = trio.current_time()
    if count < 3:
        async with open_carrier(url, "ssh", attempt_timeout=7) as stream:
            assert trio.current_time() - began == pytest.approx(7 * count)
            await trio.sleep(100)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
        assert carriers.tried == [*CARRIERS[: count + 1]]
    else:
        with pytest.raises(OpenError) as caught:
            await ask(url)
        assert trio.current_time() - began == pytest.approx(15)
        assert caught.value.__notes__ == [
            f"{carrier}: no answer within 5 seconds" for carrier in CARRIERS
        ]
    nursery.cancel_scope.cancel()


async def test_no_limit(nursery, autojump_clock) -> None:
    """None disables the limit; the scopes around the block hold."""
    carriers = Carriers()
    carriers.blocked = {UPGRADE: stay_silent}
    url = await carriers.start(nursery)
    with trio.move_on_after(1000) as scope:
        await ask(url, attempt_timeout=None)

    assert scope.cancelled_caught
    assert carriers.tried == [UPGRADE]
    nursery.cancel_scope.cancel()


class Late:
    """A carrier whose deadline passes in the step in which it gets through."""

    def __init__(self, carrier, clock: trio.testing.MockClock) -> None:
        self.name = carrier.name
        self._carrier = carrier
        self._clock = clock

    async def open(self, stack):
        stream = await self._carrier.open(stack)
        self._clock.jump(6)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return stream


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_answer_and_deadline_at_once(nursery, carrier, mock_clock) -> None:
    """An answer in the very step of the deadline is too late: the scope cannot go on."""
    carriers = Carriers()
    carriers.allow_only(carrier)
    url = await carriers.start(nursery, limits=Limits(linger=0))
    block = open_carrier(url, "ssh")
    block._carriers = [Late(each, mock_clock) for each in block._carriers]  # type: ignore[attr-defined]
    with pytest.raises(OpenError) as caught:
        await block.__aenter__()

    notes = [note for note in caught.value.__notes__ if note.startswith(carrier)]
    assert notes == [f"{carrier}: no answer within 5 seconds"]
    await carriers.server.drain(5)


async def test_no_tls(nursery) -> None:
    """A handshake that fails is passed, without a change to clear text."""
    carriers = Carriers()
    _, context = make_tls_contexts()
    server = await nursery.start(
        partial(serve_ssl_over_tcp, carriers.app, 0, context, host=HOST)
    )
    with pytest.raises(OpenError) as caught:
        await ask(server.url)

    assert [note[: note.index(":")] for note in caught.value.__notes__] == [*CARRIERS]
    assert all("no TLS" in note for note in caught.value.__notes__)
    assert not carriers.tried
    nursery.cancel_scope.cancel()


async def test_no_connection() -> None:
    """A host that cannot be reached is final at once."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        await ask(f"http://{HOST}:{port}")


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_over_tls(nursery, carrier) -> None:
    """Each carrier ends one direction over TLS, too."""
    client, context = make_tls_contexts()
    carriers = Carriers()
    carriers.allow_only(carrier)
    server = await nursery.start(
        partial(serve_ssl_over_tcp, carriers.app, 0, context, host=HOST, strict=True)
    )
    options = {"ssl_context": client, "server_hostname": "localhost"}

    assert await ask(server.url, **options) == b"hello"
    await server.drain(5)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_through_a_proxy(nursery, carrier) -> None:
    """Each attempt has its own tunnel through the proxy."""
    tunnels = []

    async def proxy(request):
        async def tunnel(request, stream, head) -> None:
            tunnels.append(request.authority)
            async with stream_scope(
                await trio.open_tcp_stream(*request.authority)
            ) as upstream:
                await relay(stream, upstream)

        return Tunnel(tunnel)

    server = await nursery.start(partial(serve_tcp, proxy, 0, host=HOST, strict=True))
    carriers = Carriers()
    carriers.allow_only(carrier)
    url = await carriers.start(nursery)

    assert await ask(url, via=server.url) == b"hello"
    assert len(tunnels) == len(carriers.tried)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_over_a_unix_socket(nursery, carrier, tmp_path) -> None:
    """A Unix socket has no port: the CONNECT names the scheme's."""
    carriers = Carriers()
    carriers.allow_only(carrier)
    path = str(tmp_path / "s")
    server = await nursery.start(partial(serve_unix, carriers.app, path, strict=True))

    assert await ask(server.url) == b"hello"
    await server.drain(5)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_fields(nursery, carrier) -> None:
    """Further fields and the URL's credentials are in the request of each carrier."""
    carriers = Carriers()
    carriers.allow_only(carrier)
    url = await carriers.start(nursery)
    url = url.replace("//", "//user:p%40ss@")
    await ask(url, headers={"X-Token": "t"})
    request = carriers.requests[-1]

    assert request.headers["x-token"] == "t"
    # user:p@ss
    assert request.headers["authorization"] == "Basic dXNlcjpwQHNz"
    await ask(url, headers=[(b"Authorization", b"Bearer t")])
    assert carriers.requests[-1].headers["authorization"] == "Bearer t"
    await ask(url, headers=request.headers.__class__([(b"Authorization", b"B u")]))
    assert carriers.requests[-1].headers["authorization"] == "B u"
    await carriers.server.drain(5)


async def test_secrets(nursery) -> None:
    """No message has the credentials or the query of the URL."""
    carriers = Carriers()
    carriers.allow_only("none")
    url = await carriers.start(nursery)
    with pytest.raises(OpenError) as caught:
        await ask(url.replace("//", "//user:secret@") + "?token=secret")

    assert "secret" not in f"{caught.value} {caught.value.__notes__}"
    await carriers.server.drain(5)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_bytes_at_once(nursery, carrier) -> None:
    """Bytes that the server sends at once, and its end, are the first of the stream."""

    async def greet(request, stream) -> None:
        await stream.send_all(b"SSH-2.0-x\r\n")
        await stream.send_eof()
        assert await read_all(stream) == b""

    carriers = Carriers(greet)
    carriers.allow_only(carrier)
    url = await carriers.start(nursery)
    async with open_carrier(url, "ssh") as stream:
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await read_all(stream) == b"SSH-2.0-x\r\n"
    await carriers.server.drain(5)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_what_leaves_the_block(nursery, carrier) -> None:
    """An exception comes out as itself, and the server gets a reset."""
    far = Far()
    carriers = Carriers(far.run)
    carriers.allow_only(carrier)
    url = await carriers.start(nursery)
    error = KeyError()
    with pytest.raises(KeyError) as caught:
        async with open_carrier(url, "ssh") as stream:
            await far.opened.wait()
            await stream.send_all(b"x")
            raise error

    assert caught.value is error
    with pytest.raises(trio.BrokenResourceError):
        await read_all(far.stream)
    group = ExceptionGroup("mine", [error])
    with pytest.raises(ExceptionGroup) as caught_group:
        async with open_carrier(url, "ssh"):
            raise group
    assert caught_group.value is group
    far.leave.set()
    await carriers.server.drain(5)


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_cancelled_everywhere(nursery, carrier) -> None:
    """Cancelled at any step, the opening and the block leave nothing open."""
    carriers = Carriers()
    carriers.allow_only(carrier)
    url = await carriers.start(nursery, limits=Limits(linger=0))
    for step in range(1, 1000):
        instrument = CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                async with open_carrier(url, "ssh") as stream:
                    await stream.send_all(b"hello")
                    await stream.send_eof()
                    await read_all(stream)
        finally:
            trio.lowlevel.remove_instrument(instrument)
        with trio.fail_after(5):
            while carriers.server.statistics().connections:
                await trio.lowlevel.checkpoint()
        if not instrument.scope.cancelled_caught:
            break

    assert step > 5
    await carriers.server.drain(5)


async def test_without_the_extra(nursery, monkeypatch) -> None:
    """The WebSocket is left out, and the error says what to install."""
    for name in [*sys.modules]:
        if name.split(".")[0] == "websockets":
            monkeypatch.setitem(sys.modules, name, None)
        elif name.startswith("trio_upgrade.") and (
            "websocket" in name or name.endswith("_carrier.stream")
        ):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    carriers = Carriers()
    url = await carriers.start(nursery)
    carriers.allow_only(CONNECT)

    assert await ask(url) == b"hello"
    assert carriers.tried == [UPGRADE, CONNECT]
    carriers.allow_only("none")
    with pytest.raises(OpenError) as caught:
        await ask(url)
    notes = caught.value.__notes__
    assert [note.partition(":")[0] for note in notes] == [*CARRIERS]
    assert "trio-upgrade[websocket]" in notes[1]
    await carriers.server.drain(5)


def test_import_that_fails_otherwise(monkeypatch) -> None:
    """An error in another module is not taken for the missing extra."""
    monkeypatch.setitem(sys.modules, "trio_upgrade._carrier.websocket", None)
    with pytest.raises(ImportError):
        open_carrier("http://x", "ssh")


async def test_no_subprotocol(nursery, monkeypatch) -> None:
    """A WebSocket without the subprotocol is another service (RFC 6455 §4.1)."""
    from trio_upgrade.websocket import accept_websocket

    async def wait(websocket) -> None:
        await websocket.wait_closed()

    async def app(request):
        if "websocket" in request.upgrades:
            return accept_websocket(request, wait)
        return await refuse(404)(request)

    carriers = Carriers()
    carriers.app = app  # type: ignore[method-assign]
    url = await carriers.start(nursery)
    with pytest.raises(OpenError) as caught:
        await ask(url)

    assert "no subprotocol 'carrier.ssh'" in caught.value.__notes__[1]
    await carriers.server.drain(5)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((1, "ssh"), {}, "a URL must be a str"),
        (("http://x", 1), {}, "a protocol must be a str"),
        (("http://x", "WebSocket"), {}, "WebSocket is one of the carriers"),
        (("http://x", "a b"), {}, "invalid"),
        (("http://x", "ssh"), {"attempt_timeout": True}, "must be seconds"),
        (("http://x", "ssh"), {"attempt_timeout": "1"}, "must be seconds"),
        (("http://x", "ssh"), {"attempt_timeout": 0}, "must be positive"),
        (("http://x", "ssh"), {"attempt_timeout": float("nan")}, "must be positive"),
        (("http://x", "ssh"), {"stream": None}, "for one attempt only"),
        (("http://x", "ssh"), {"vja": None}, "Did you mean 'via'"),
        (("http://x", "ssh"), {"zzz": None}, "unexpected keyword argument 'zzz'"),
        (("http://x", "ssh"), {"headers": "a: b"}, "headers must be pairs"),
        (("http://x", "ssh"), {"headers": {"Host": "y"}}, "Host is written"),
        (("http://x", "ssh"), {"headers": {b"Expect": b"y"}}, "Expect is written"),
        (("http://x", "ssh"), {"headers": {"Sec-WebSocket-Key": "y"}}, "is written"),
        (("http://x", "ssh"), {"headers": {"a": "b\n"}}, "control"),
    ],
)
def test_arguments(arguments, options, error) -> None:
    """A wrong argument is an error of the call."""
    with pytest.raises((TypeError, ValueError), match=error):
        open_carrier(*arguments, **options)


@pytest.mark.parametrize("url", ["ftp://x", "http://", "x"])
async def test_wrong_url(url) -> None:
    """A wrong URL is a ValueError when the block is entered; nothing is opened."""
    with pytest.raises(ValueError, match="URL"):
        await ask(url)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("http://Example.com", "Example.com:80"),
        ("wss://example.com?x=1", "example.com:443"),
        ("ws://user@h:81/path:9", "h:81"),
        ("http://h:/", "h:80"),
        ("https://[fe80::1%25eth0]:8443/", "[fe80::1]:8443"),
        ("http://[::1]", "[::1]:80"),
        ("http://bücher.example:8080", "xn--bcher-kva.example:8080"),
        ("http+unix://%2Frun%2Fs/x", "localhost:80"),
        ("wss+unix://%2Frun%2Fs", "localhost:443"),
    ],
)
def test_authority(url, authority) -> None:
    """CONNECT names the URL's host and always a port (RFC 9112 §3.2.3)."""
    assert find_authority(url) == authority


def test_credentials() -> None:
    """The password may have colons, or be missing (RFC 7617 §2)."""
    assert find_credentials("http://h/") == []
    assert find_credentials("http://u@h") == [("Authorization", "Basic dTo=")]
    assert find_credentials("http://u:a:b@h") == [("Authorization", "Basic dTphOmI=")]


def test_signature() -> None:
    """help() shows each option but stream."""
    names = {*inspect.signature(open_carrier).parameters}

    assert names == {
        *("url", "protocol", "attempt_timeout", "headers"),
        *DialOptions.__annotations__,
    } - {"stream"}


def test_kinds_of_errors() -> None:
    """The errors that the docs name are errors of the opening."""
    assert issubclass(TunnelRefused, Refused)
    assert issubclass(PeerGone, OpenError)


async def test_linked(nursery) -> None:
    """The end of the server's handler is an end here."""
    for carrier in CARRIERS:
        async with linked(nursery, carrier) as (stream, far):
            far.leave.set()
            assert await stream.receive_some() == b""
    nursery.cancel_scope.cancel()
