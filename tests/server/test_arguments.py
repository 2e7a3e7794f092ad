"""Mistakes in the call of a serve_* function: raised at once, and nothing is touched."""

from __future__ import annotations

import functools
import inspect
import logging
import signal
import socket
import ssl
import types
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import trio
import trio.testing

from trio_upgrade import (
    Limits,
    Request,
    Response,
    Server,
    Upgrade,
    UpgradedStream,
    drain_on_signal,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
    serve_unix,
)
from trio_upgrade._server.arguments import check_app
from trio_upgrade.testing import ScriptedPeer

from ..apps import echo_app
from ..recording import Recorder
from ..servers import MemoryListener
from ..wire import UP, get, okay

if TYPE_CHECKING:
    from pathlib import Path

    from trio_upgrade import App

pytestmark = pytest.mark.ids("F39")

HOST = "127.0.0.1"
CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
# Public names without their types, for mistakes that a type checker would find.
tcp: Any = serve_tcp
tls: Any = serve_ssl_over_tcp
unix: Any = serve_unix
listeners: Any = serve_listeners
stream: Any = serve_stream


async def generator(request: Request):
    yield Response(200)


def plain_generator(request: Request):
    yield Response(200)


async def asgi(scope, receive, send) -> None:
    raise AssertionError


class Nothing:
    """Neither an app nor an observer."""


class App_:
    """An app as an object."""

    async def __call__(self, request: Request) -> Response:
        return Response(200, b"okay")


class Generating:
    async def __call__(self, request: Request):
        yield Response(200)


WANTED = "the app must be an async function that takes the request, await app(request)"
APPS: list[tuple[object, str]] = [
    ("notcallable", ", not str"),
    (None, ", not None"),
    (3, ", not int"),
    (Response(200), ", not Response"),
    (Nothing(), ", not Nothing"),
    (App_, ", not the class App_: give an instance"),
    (generator, ": it returns its answer and does not yield it"),
    (plain_generator, ": it returns its answer and does not yield it"),
    (partial(generator), ": it returns its answer and does not yield it"),
    (Generating(), ": it returns its answer and does not yield it"),
    (asgi, ": this one takes (scope, receive, send) -> 'None'"),
    (partial(asgi, {}), ": this one takes (receive, send) -> 'None'"),
    (lambda: None, ": this one takes ()"),
]


def callers(app: object, **options: Any) -> list[Any]:
    """Return a call of each serve_* function."""
    memory, _ = trio.testing.memory_stream_pair()
    return [
        partial(tcp, app, 0, host=HOST, **options),
        partial(tls, app, 0, CONTEXT, host=HOST, **options),
        partial(unix, app, "\0trio_upgrade arguments", **options),
        partial(listeners, app, [], **options),
        partial(stream, app, memory, **options),
    ]


@pytest.mark.parametrize(("app", "given"), APPS)
async def test_app(app: object, given: str) -> None:
    """An app that could never answer is refused by each function."""
    for call in callers(app):
        with trio.fail_after(5), pytest.raises(TypeError) as caught:
            await call()

        assert str(caught.value).startswith(WANTED + given)


async def test_coroutine() -> None:
    """So is a coroutine: the app was called by mistake."""
    made = App_()(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not a coroutine: give the function itself"):
        await tcp(made, 0)
    made.close()


async def okay_app(request: Request) -> Response:
    return Response(200, b"okay")


async def optional_app(
    request: Request, name: str = "x", *, flag: bool = False
) -> Response:
    return Response(200, b"okay")


async def two(name: str, request: Request) -> Response:
    return Response(200, b"okay")


def plain(request: Request):
    """A function that returns what can be awaited."""
    return okay_app(request)


def wrapping(app):
    """A decorator that gives the app one more argument."""

    @functools.wraps(app)
    async def wrapper(request: Request):
        return await app("x", request)

    return wrapper


@types.coroutine
def marked(request: Request):
    yield from okay_app(request).__await__()
    return Response(200, b"okay")


class Awaitable:
    """A class whose instances can be awaited."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def __await__(self):
        return okay_app(self.request).__await__()


class Chosen:
    """A class whose call returns something else than an instance."""

    def __new__(cls, request: Request) -> Any:
        return okay_app(request)


def signed(*arguments: Any) -> Any:
    """A function with the signature of another one."""
    return okay_app(*arguments)


signed.__signature__ = 3  # type: ignore[attr-defined]


class Odd:
    """A callable that has no code of its own, and attributes of any name."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__code__":
            raise AttributeError
        return self

    def __call__(self, *arguments: Any) -> Any:
        return okay_app(*arguments)


class Static:
    """A callable whose call has no self."""

    __call__ = staticmethod(okay_app)


@pytest.mark.parametrize(
    "app",
    [
        okay_app,
        optional_app,
        partial(two, "x"),
        partial(partial(two), "x"),
        plain,
        lambda request: okay_app(request),
        wrapping(two),
        marked,
        App_(),
        App_().__call__,
        Awaitable,
        Chosen,
        signed,
        Odd(),
        Static(),
    ],
)
async def test_any_callable(app: App) -> None:
    """Nothing is refused that works."""
    peer = ScriptedPeer(get("/"))
    await serve_stream(app, peer, strict=True)

    assert peer.sent == okay()


async def test_function_without_a_signature() -> None:
    """Some functions in C do not say what they take: they are not refused."""
    function: Any = max
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(function)

    check_app(function)


def sync(request: Request) -> Response:
    return Response(200)


@pytest.mark.parametrize("app", [sync, partial(sync)])
async def test_sync_app(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Only the first request tells that a plain function returns no awaitable."""
    peer = ScriptedPeer(get("/"))
    await serve_stream(app, peer)

    assert peer.sent.startswith(b"HTTP/1.1 500 ")
    assert WANTED in caplog.text


@pytest.mark.parametrize("handler", [lambda *_: None, lambda stream: stream, two])
async def test_handler(handler: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A handler of another kind is told what is wanted when it is called."""

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    peer = ScriptedPeer(UP)
    await serve_stream(app, peer)

    assert "takes three arguments" in caplog.text


async def test_other_bugs_of_handlers(caplog: pytest.LogCaptureFixture) -> None:
    """A TypeError of the handler's own has no such note."""

    async def handler(request: Request, stream: UpgradedStream, head: bytes) -> None:
        raise TypeError("oops")

    async def app(request: Request) -> Upgrade:
        return Upgrade("echo", handler)

    await serve_stream(app, ScriptedPeer(UP))

    assert "oops" in caplog.text
    assert "takes three arguments" not in caplog.text


async def test_piece_that_is_text(caplog: pytest.LogCaptureFixture) -> None:
    """A body that yields a str is told what is wanted."""

    async def body():
        yield "text"

    async def app(request: Request) -> Response:
        return Response(200, body())

    await serve_stream(app, ScriptedPeer(get("/")))

    assert "a piece of a body must be bytes, not str" in caplog.text


@pytest.mark.parametrize(
    ("number", "message"), [(0, "one or more"), (2, "one was given twice")]
)
async def test_number_of_listeners(number: int, message: str) -> None:
    """No listener, or the same one twice, is a ValueError."""
    listener = MemoryListener()
    with pytest.raises(ValueError, match=message):
        await serve_listeners(echo_app, [listener] * number)

    assert not listener.closed


async def test_signals(nursery) -> None:
    """drain_on_signal() says what a signal and a server are."""
    server = await nursery.start(serve_tcp, echo_app, 0)
    drain: Any = drain_on_signal
    for given in ("SIGTERM", [signal.SIGTERM], None):
        with pytest.raises(
            TypeError, match=r"a signal must be one such as signal\.SIG"
        ):
            await drain(server, given, grace=1)
    with pytest.raises(TypeError, match="server must be a Server, not "):
        await drain(5, signal.SIGTERM, grace=1)


async def test_other_bugs_have_no_note(caplog: pytest.LogCaptureFixture) -> None:
    """A TypeError within an app is explained by its own traceback."""

    async def app(request: Request) -> Response:
        raise TypeError("mine")

    await serve_stream(app, ScriptedPeer(get("/")))

    assert "mine" in caplog.text
    assert WANTED not in caplog.text


class Misspelt:
    def requests(self, record: object) -> None:
        raise AssertionError


class Async:
    async def ended(self, record: object) -> None:
        raise AssertionError


class Attribute:
    error = "no method"


class NoRecord:
    def switched(self) -> None:
        raise AssertionError


OPTIONS: list[tuple[dict[str, object], str]] = [
    ({"limits": 3}, "limits must be a Limits, not int"),
    ({"limits": None}, "limits must be a Limits, not None"),
    ({"limits": Limits}, "limits must be a Limits, not the class Limits"),
    ({"limits": {"linger": 3}}, "limits must be a Limits, not dict"),
    (
        {"observer": Misspelt()},
        "any of the methods request, switched, ended, error; Misspelt has none",
    ),
    ({"observer": Nothing}, "error; the class Nothing has none"),
    ({"observer": print}, "error; builtin_function_or_method has none"),
    (
        {"observer": Recorder},
        "the record, not (self, record: 'RequestRecord') -> 'None': give an instance",
    ),
    (
        {"observer": NoRecord()},
        "the observer's switched must take one argument, the record, not () -> 'None'",
    ),
    (
        {"observer": Async()},
        "the observer's ended is called, not awaited: no async def",
    ),
    ({"observer": Attribute()}, "the observer's error must be a method, not str"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
async def test_options(options: dict[str, object], message: str) -> None:
    """A limit or an observer that could never be used is refused by each function."""
    for call in callers(echo_app, **options):
        with trio.fail_after(5), pytest.raises(TypeError) as caught:
            await call()

        assert str(caught.value).endswith(message)


class StaticObserver:
    """An observer that is a class."""

    seen: ClassVar[list[object]] = []

    @staticmethod
    def ended(record: object) -> None:
        StaticObserver.seen.append(record)


class Optional:
    """An observer whose methods take more, or are none."""

    request = None

    def __init__(self) -> None:
        self.seen: list[object] = []

    def ended(self, *records: object) -> None:
        self.seen += records


@pytest.mark.parametrize("observer", [StaticObserver, Optional()])
async def test_any_observer(observer: Any) -> None:
    """An observer is any object with a method that can be called with a record."""
    await serve_stream(echo_app, ScriptedPeer(get("/")), observer=observer)

    assert len(observer.seen) == 1


async def test_builtin_methods() -> None:
    """Functions in C may have no signature; a logger is an observer of errors."""
    observer: Any = types.SimpleNamespace(request=[].append, ended=dict.fromkeys)
    await serve_stream(echo_app, ScriptedPeer(get("/")), observer=observer)
    await serve_stream(
        echo_app, ScriptedPeer(get("/")), observer=logging.getLogger("trio_upgrade.x")
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"port": "80"}, TypeError, "port must be an int, not str"),
        ({"port": None}, TypeError, "port must be an int, not None"),
        ({"port": True}, TypeError, "port must be an int, not bool"),
        ({"port": 80.0}, TypeError, "port must be an int, not float"),
        ({"port": -1}, ValueError, "port must be from 0 to 65535, not -1"),
        ({"port": 65536}, ValueError, "port must be from 0 to 65535, not 65536"),
        (
            {"host": 3},
            TypeError,
            "host must be one str, or None for every address, not int",
        ),
        (
            {"host": [HOST]},
            TypeError,
            "host must be one str, or None for every address, not list",
        ),
        (
            {"backlog": "9"},
            TypeError,
            "backlog must be an int, or None for the kernel's maximum, not str",
        ),
        ({"backlog": False}, TypeError, "kernel's maximum, not bool"),
        ({"backlog": -1}, ValueError, "backlog must not be negative, not -1"),
    ],
)
async def test_tcp(options: dict[str, Any], error: Any, message: str) -> None:
    """Port, host and backlog are checked before a socket is made."""
    port = options.pop("port", 0)
    for call in partial(tcp, echo_app, port), partial(tls, echo_app, port, CONTEXT):
        with trio.fail_after(5), pytest.raises(error) as caught:
            await call(**options)

        assert str(caught.value).endswith(message)


async def test_tls() -> None:
    """TLS settings are those of a server."""
    with pytest.raises(TypeError, match=r"an ssl\.SSLContext with .* not str$"):
        await tls(echo_app, 0, "cert.pem")
    with pytest.raises(ValueError, match="ssl_context must be for a server"):
        await tls(echo_app, 0, ssl.create_default_context())
    with pytest.raises(TypeError, match="not the class SSLContext"):
        await tls(echo_app, 0, ssl.SSLContext)
    with pytest.raises(TypeError, match="ssl_context is called, not awaited"):
        await tls(echo_app, 0, echo_app)
    with pytest.raises(TypeError, match=r"must take no arguments, not \(name\)"):
        await tls(echo_app, 0, lambda name: CONTEXT)


async def test_unix(tmp_path: Path) -> None:
    """A path is a path, and the mode a number."""
    for path in (5, None, [str(tmp_path)]):
        with pytest.raises(
            TypeError, match=r"path must be a str, bytes or os\.PathLike"
        ):
            await unix(echo_app, path)
    for mode in ("0660", True, 6.5):
        with pytest.raises(
            TypeError, match="mode must be an int such as 0o660, or None"
        ):
            await unix(echo_app, tmp_path / "socket", mode=mode)
    with pytest.raises(ValueError, match="backlog must not be negative"):
        await unix(echo_app, tmp_path / "socket", backlog=-1)

    assert not (tmp_path / "socket").exists()


async def test_listeners() -> None:
    """Listeners are a sequence; those that are given stay open."""
    (listener,) = await trio.open_tcp_listeners(0, host=HOST)
    wanted = "listeners must be a sequence of trio.abc.Listener, not "
    with socket.socket() as sock:
        for given, kind in (
            (listener, "SocketListener"),
            ("ab", "str"),
            (None, "None"),
            ([listener, sock], "of socket"),
            ((listener, None), "of None"),
            ([trio.SocketListener], "of the class SocketListener"),
        ):
            with pytest.raises(TypeError) as caught:
                await listeners(echo_app, given)
            assert str(caught.value) == wanted + kind
        with pytest.raises(TypeError):
            await listeners("app", [listener])
        with pytest.raises(TypeError):
            await listeners(echo_app, [listener], limits=3)
        assert sock.fileno() >= 0
    assert listener.socket.fileno() >= 0
    await listener.aclose()


async def test_iterator_of_listeners(nursery) -> None:
    """Any iterable of listeners serves, though it can be read only once."""
    given = await trio.open_tcp_listeners(0, host=HOST)
    server: Server = await nursery.start(listeners, echo_app, iter(given))

    assert server.listeners == given
    nursery.cancel_scope.cancel()


async def test_stream() -> None:
    """A stream is one of Trio's; one that is given stays open."""
    for given, kind in (
        (None, "None"),
        ("ab", "str"),
        (trio.SocketStream, "the class SocketStream"),
    ):
        with pytest.raises(TypeError, match=rf"a trio\.abc\.Stream, not {kind}$"):
            await stream(echo_app, given)
    with socket.socket() as sock:
        with pytest.raises(TypeError, match=r"a trio\.abc\.Stream, not socket$"):
            await stream(echo_app, sock)
        assert sock.fileno() >= 0
    peer = ScriptedPeer()
    for call in (
        partial(stream, "app", peer),
        partial(stream, echo_app, peer, limits=3),
        partial(stream, echo_app, peer, server="x"),
    ):
        with pytest.raises(TypeError):
            await call()
        assert not peer.closed


async def test_wrapper_of_a_stream() -> None:
    """A stream of any class serves if it has the methods."""

    class Wrapper:
        def __init__(self, inner: ScriptedPeer) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    peer = ScriptedPeer(get("/"))
    await stream(echo_app, Wrapper(peer), strict=True)

    assert peer.sent == okay(b"/")


async def test_grace(nursery) -> None:
    """The grace of a drain is seconds, or None."""
    server: Any = await nursery.start(partial(serve_tcp, echo_app, 0, host=HOST))
    with pytest.raises(TypeError, match="a grace must be seconds or None, not str"):
        server.start_drain("5")
    with pytest.raises(ValueError, match="a grace must not be negative, not -1"):
        server.start_drain(-1)
    assert not server.is_draining
    nursery.cancel_scope.cancel()
