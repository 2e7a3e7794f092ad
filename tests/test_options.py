"""The options that public functions share: their signatures, names and defaults."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_upgrade import (
    ConnectionPool,
    DialOptions,
    Limits,
    Response,
    ServeOptions,
    open_connection,
    open_tunnel,
    open_upgrade,
    serve_listeners,
    serve_ssl_over_tcp,
    serve_stream,
    serve_tcp,
    serve_unix,
)
from trio_upgrade._client import open as dialling
from trio_upgrade._server import serve as serving
from trio_upgrade._server.observers import Observers
from trio_upgrade.testing import ScriptedPeer

from .servers import MemoryListener

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_upgrade import Request

SERVE: dict[str, tuple[str, object]] = {
    "limits": ("Limits", Limits()),
    "close_on_optimistic_data": ("bool", False),
    "strict": ("bool", False),
    "observer": ("object | None", None),
    "proxy_protocol": ("TrustedLike | None", None),
}
DIAL: dict[str, tuple[str, object]] = {
    "ssl_context": ("ssl.SSLContext | None", None),
    "server_hostname": ("str | None", None),
    "https_compatible": ("bool", True),
    "via": ("str | Proxy | Sequence[str | Proxy] | None", None),
    "local_address": ("str | None", None),
    "limits": ("Limits", Limits()),
    "stream": ("trio.abc.Stream | None", None),
}
# The options of each function that are its own.
OWN = {
    serve_tcp: "app port host backlog reuse_port task_status",
    serve_ssl_over_tcp: (
        "app port ssl_context host https_compatible backlog reuse_port task_status"
    ),
    serve_unix: "app path mode backlog task_status",
    serve_listeners: "app listeners task_status",
    serve_stream: "app stream server",
    open_upgrade: (
        "url protocols method headers body trailers on_informational "
        "tolerate_missing_connection"
    ),
    open_tunnel: "proxy_url authority headers on_informational",
    open_connection: "url",
}
every_function = pytest.mark.parametrize(
    ("function", "own"), OWN.items(), ids=lambda value: getattr(value, "__name__", "")
)


async def app(request: Request) -> Response:
    return Response(200, b"okay")


def options_of(function: Callable[..., Any]) -> dict[str, tuple[str, object]]:
    return SERVE if function.__name__.startswith("serve_") else DIAL


@every_function
def test_signature_lists_every_option(function: Callable[..., Any], own: str) -> None:
    """inspect.signature and help show each option with its default and its type."""
    signature = inspect.signature(function)
    options = options_of(function)
    parameters = dict(signature.parameters)
    shown = pydoc.plain(pydoc.render_doc(function))
    shared = {name: parameters.pop(name) for name in options}

    assert vars(function)["__signature__"] is signature
    assert list(parameters) == own.split()
    for name, (annotation, default) in options.items():
        assert shared[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert shared[name].annotation == annotation
        assert shared[name].default == default
        assert f" {name}: " in shown
    for parameter in parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
    assert signature.return_annotation == function.__annotations__["return"]


def test_signatures_of_a_pool() -> None:
    """Both calls of a pool that dial show the options, too."""
    for call, own in (
        (ConnectionPool, "connections per_origin idle_timeout connect_timeout"),
        (
            ConnectionPool().request,
            "method url target headers body trailers on_informational",
        ),
    ):
        parameters = inspect.signature(call).parameters

        assert list(parameters) == [*own.split(), *DIAL]
        for name, (annotation, default) in DIAL.items():
            assert parameters[name].annotation == annotation
            assert parameters[name].default == default


def test_signature_through_partial() -> None:
    """A partial call shows the options that are still open."""
    signature = inspect.signature(partial(serve_tcp, app, 0, strict=True))

    assert next(iter(signature.parameters)) == "host"
    assert signature.parameters["strict"].default is True
    assert signature.parameters["limits"].default == Limits()


@pytest.mark.parametrize(
    ("typed", "options"),
    [(ServeOptions, SERVE), (DialOptions, DIAL)],
    ids=["serve", "dial"],
)
def test_every_key_is_documented(typed: Any, options: dict[str, Any]) -> None:
    """Each key may be left out, and help() describes it."""
    assert typed.__optional_keys__ == {*options}
    source = inspect.getsource(serving if typed is ServeOptions else dialling)
    body = source.partition(f"class {typed.__name__}(")[2].partition("\n\n\n")[0]
    for name, (annotation, _) in options.items():
        assert f"\n    {name}: {annotation}\n" in f"{body}\n", name
        assert f"\n    {name}: " in (inspect.getdoc(typed) or ""), name


@every_function
@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("limit", ". Did you mean 'limits'?"),
        ("Limits", ". Did you mean 'limits'?"),
        ("zzz", ""),
    ],
)
async def test_misspelt_option(
    function: Callable[..., Any], own: str, option: str, hint: str
) -> None:
    """A name that does not exist is a TypeError like Python's own, with a hint."""
    required = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is inspect.Parameter.empty
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    with pytest.raises(TypeError) as caught:
        await function(**dict.fromkeys(required), **{option: 1})

    assert str(caught.value) == (
        f"{function.__qualname__}() got an unexpected keyword argument {option!r}{hint}"
    )


@pytest.mark.parametrize(
    ("function", "option", "hint"),
    [
        (serve_tcp, "bakclog", "backlog"),
        (serve_unix, "modes", "mode"),
        (serve_unix, "stric", "strict"),
        (open_upgrade, "header", "headers"),
        (open_upgrade, "steam", "stream"),
    ],
)
async def test_misspelt_option_hint(function: Any, option: str, hint: str) -> None:
    """The hint may be an option of the function's own, or a shared one."""
    with pytest.raises(TypeError, match=f"Did you mean '{hint}'"):
        await function(None, 0, **{option: 1})


async def test_misspelt_option_hint_can_be_given() -> None:
    """Protocols are given by position: their name is no hint, as it would not work."""
    call: Any = open_upgrade
    with pytest.raises(TypeError, match=r"argument 'protocols'$"):
        await call("http://x", protocols="echo")


async def test_misspelt_option_of_serving_opens_nothing() -> None:
    """Listeners and streams that were given stay open, and no port is taken."""
    tcp: Any = serve_tcp
    listen: Any = serve_listeners
    serve: Any = serve_stream
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with pytest.raises(TypeError):
            # Otherwise an OSError: the port is taken.
            await tcp(app, port, host="127.0.0.1", stric=True)
        with pytest.raises(TypeError):
            await listen(app, [listener], stric=True)
        assert listener.socket.fileno() >= 0
    peer = ScriptedPeer()
    with pytest.raises(TypeError):
        await serve(app, peer, stric=True)
    assert not peer.closed


@pytest.mark.parametrize(
    "call",
    [
        partial(open_upgrade, "http://x", "echo"),
        partial(open_tunnel, "http://x", "a:1"),
        partial(open_connection, "http://x"),
    ],
    ids=["open_upgrade", "open_tunnel", "open_connection"],
)
async def test_misspelt_option_of_dialling_leaves_the_stream(call: Any) -> None:
    """A call with a name that does not exist is void: the stream stays the caller's."""
    peer = ScriptedPeer()
    with pytest.raises(TypeError, match="unexpected keyword argument 'limit'"):
        await call(stream=peer, limit=Limits())
    assert not peer.closed
    assert not peer.sent
    # A call with names that exist owns the stream, whatever else is wrong with it.
    for option in "via", "server_hostname", "local_address":
        peer = ScriptedPeer()
        with pytest.raises(TypeError, match="stream= is spoken on"):
            await call(stream=peer, **{option: "http://x"})
        assert peer.closed


async def test_defaults_of_serving_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults that the signature shows are those a server gets."""
    made: list[tuple[Any, dict[str, Any]]] = []

    def make_state(limits: Limits, **options: object) -> Any:
        made.append((limits, options))
        raise RuntimeError

    monkeypatch.setattr(serving, "ServerState", make_state)
    shown = inspect.signature(serve_stream).parameters
    for start in (
        partial(serve_stream, app, ScriptedPeer()),
        partial(serve_listeners, app, [MemoryListener()]),
    ):
        with pytest.raises(RuntimeError):
            await start()

        ((limits, options),) = made
        made.clear()
        observers = options.pop("observers")
        assert isinstance(observers, Observers)
        assert observers.on_end is None
        assert {"limits": limits, "observer": None, **options} == {
            name: shown[name].default for name in SERVE
        }
        assert limits is shown["limits"].default


async def test_defaults_of_dialling_act(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults that the signature shows are those a client gets."""
    made: list[dict[str, Any]] = []
    peer = ScriptedPeer()

    class Route:
        def __init__(self, endpoint: object, **options: object) -> None:
            made.append(options)

        async def open(self, limits: Limits) -> trio.abc.Stream:
            made[0]["limits"] = limits
            return peer

    monkeypatch.setattr(dialling, "Route", Route)
    shown = inspect.signature(open_connection).parameters
    connection = await open_connection("http://x")
    await connection.aclose()

    assert made == [{name: shown[name].default for name in DIAL if name != "stream"}]
    assert shown["stream"].default is None


def test_hints_are_imported_late() -> None:
    """A server that starts without a mistake never imports difflib."""
    script = "import sys; from trio_upgrade import {}; print('difflib' in sys.modules)"
    for name in ("serve_tcp", "open_upgrade"):
        command = [sys.executable, "-c", script.format(name)]
        found = subprocess.run(command, capture_output=True, check=True, text=True)
        assert found.stdout.split() == ["False"]
