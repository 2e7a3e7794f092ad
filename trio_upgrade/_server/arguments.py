# The arguments of the serve_* functions, checked before anything is opened or taken
# over.  Nothing is refused that may work: an app may be any callable whose result can be
# awaited, and an observer any object with one of the methods.
from __future__ import annotations

import inspect
import os
import ssl
from collections.abc import Iterable
from functools import partial
from types import BuiltinMethodType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any, cast

from .._errors import UsageError
from .._limits import Limits
from .._streams.trusted_peers import make_trusted
from .._util import name_kind
from .server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._streams.trusted_peers import TrustedLike

OBSERVED = ("request", "switched", "ended", "error")
_HIGHEST_PORT = 65535
_APP = "the app must be an async function that takes the request, await app(request)"
_HANDLER = (
    "a handler must be an async function that takes three arguments, "
    "await handler(request, stream, head)"
)
# A function with one of these makes a generator, unless types.coroutine() has marked it.
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def check_app(app: object) -> None:
    """Check that an object can be an app.

    A plain ``def`` is not refused: it may return the coroutine of another app.

    Raises:
        TypeError: It cannot be called with one argument, or its result could never be
            awaited.
    """
    if not callable(app):
        raise TypeError(f"{_APP}, not {name_kind(app)}")
    if isinstance(app, type):
        # Otherwise a call may return something else than an instance.
        plain = type(app) is type and cast("Any", app).__new__ is object.__new__
        if plain and not hasattr(app, "__await__"):
            raise TypeError(f"{_APP}, not {name_kind(app)}: give an instance")
        return
    flags = _find_flags(app)
    if flags & _GENERATORS and not flags & inspect.CO_ITERABLE_COROUTINE:
        raise TypeError(f"{_APP}: it returns its answer and does not yield it")
    if not _takes_one(app):
        raise TypeError(f"{_APP}: this one takes {_describe_parameters(app)}")


def explain_bug(errors: BaseException) -> None:
    """Add a note to an exception that calling an app raised because of what the app is.

    Whether a plain ``def`` works is known only when its result is awaited.

    Args:
        errors: The exception, whose traceback begins with the two frames that call apps.
    """
    _explain(errors, 2, _APP)


def explain_bug_of_handler(errors: BaseException) -> None:
    """Do the same for a handler, which one frame calls.

    It is not checked when it is given: that would cost each handshake.
    """
    _explain(errors, 1, _HANDLER)


def _explain(errors: BaseException, frames: int, text: str) -> None:
    below = errors.__traceback__
    for _ in range(frames):
        below = below and below.tb_next
    if isinstance(errors, TypeError) and below is None:
        errors.add_note(text)


def explain_answer(answer: object, request: object) -> UsageError:
    """Return the error for something that an app has returned and that is no answer."""
    return UsageError(
        f"the app returned {answer!r} to {request!r}: it must return a Response, an "
        "Upgrade or a Tunnel, or None after respond(), accept_upgrade() or "
        "accept_connect()"
    )


def check_options(options: Mapping[str, object]) -> None:
    """Check the values of :class:`ServeOptions`; their names are checked elsewhere.

    Raises:
        TypeError: The limits are no Limits, or the observer would never be called, or
            not with a record alone, or the trusted peers are of another type.
        ValueError: A trusted network is none.
    """
    limits = options.get("limits")
    if "limits" in options and not isinstance(limits, Limits):
        raise _refuse("limits", "a Limits", limits)
    trusted = options.get("proxy_protocol")
    if trusted is not None:
        make_trusted(cast("TrustedLike", trusted))
    observer = options.get("observer")
    if observer is not None:
        _check_observer(observer)


def _check_observer(observer: object) -> None:
    found = False
    for name in OBSERVED:
        method: object = getattr(observer, name, None)
        if method is None:
            continue
        found = True
        if not callable(method):
            raise TypeError(
                f"the observer's {name} must be a method, not {name_kind(method)}"
            )
        if _find_flags(method) & inspect.CO_COROUTINE:
            raise TypeError(
                f"the observer's {name} is called, not awaited: no async def"
            )
        if not _takes_one(method):
            hint = ": give an instance" if isinstance(observer, type) else ""
            raise TypeError(
                f"the observer's {name} must take one argument, the record, not "
                f"{_describe_parameters(method)}{hint}"
            )
    if not found:
        raise TypeError(
            f"an observer has any of the methods {', '.join(OBSERVED)}; "
            f"{name_kind(observer)} has none"
        )


def check_port(port: object) -> None:
    """Check a port to listen on.

    Raises:
        TypeError: It is not an int.
        ValueError: It is not from 0 to 65535.
    """
    if isinstance(port, bool) or not isinstance(port, int):
        raise _refuse("port", "an int", port)
    if not 0 <= port <= _HIGHEST_PORT:
        raise ValueError(f"port must be from 0 to {_HIGHEST_PORT}, not {port}")


def check_host(host: object) -> None:
    """Check an address to listen on.

    Raises:
        TypeError: It is not a str, bytes or None.
    """
    if not isinstance(host, str | bytes | None):
        raise _refuse("host", "one str, or None for every address", host)


def check_backlog(backlog: object) -> None:
    """Check a listen backlog.

    Raises:
        TypeError: It is neither an int nor None.
        ValueError: It is negative.
    """
    if backlog is None:
        return
    if isinstance(backlog, bool) or not isinstance(backlog, int):
        raise _refuse("backlog", "an int, or None for the kernel's maximum", backlog)
    if backlog < 0:
        raise ValueError(f"backlog must not be negative, not {backlog}")


def check_server_context(context: object) -> None:
    """Check the TLS settings of a server, or the function that returns them.

    The function is not called: it is for connections.

    Raises:
        TypeError: They are neither an ``ssl.SSLContext`` nor a function without
            arguments.
        ValueError: They are for a client.
    """
    if callable(context) and not isinstance(context, type):
        if _find_flags(context) & (inspect.CO_COROUTINE | _GENERATORS):
            raise TypeError(
                "the function given as ssl_context is called, not awaited: no async def"
            )
        if not _takes(context):
            raise TypeError(
                "the function given as ssl_context must take no arguments, not "
                f"{_describe_parameters(context)}"
            )
        return
    if not isinstance(context, ssl.SSLContext):
        raise _refuse(
            "ssl_context",
            "an ssl.SSLContext with certificate and key, or a function that returns one",
            context,
        )
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "ssl_context must be for a server, as from "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), not PROTOCOL_TLS_CLIENT"
        )


def check_path(path: object, mode: object) -> None:
    """Check the path of a Unix socket, and the permissions of its file.

    Raises:
        TypeError: The path is no path, or the mode is neither an int nor None.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise _refuse("path", "a str, bytes or os.PathLike", path)
    if isinstance(mode, bool) or not isinstance(mode, int | None):
        raise _refuse("mode", "an int such as 0o660, or None", mode)


def check_listeners(listeners: object) -> None:
    """Check the listeners to serve on.

    Raises:
        TypeError: They are not listeners in a sequence.
        ValueError: There is none, or one of them twice.
    """
    wanted = "a sequence of trio.abc.Listener"
    if isinstance(listeners, str | bytes) or not isinstance(listeners, Iterable):
        raise _refuse("listeners", wanted, listeners)
    if isinstance(listeners, list | tuple):
        # Not of others: an iterator can be read only once.
        for listener in cast("list[object]", listeners):
            if not _has(listener, "accept", "aclose"):
                raise _refuse("listeners", wanted, listener, "of ")
        given = cast("list[object]", listeners)
        if not given:
            # Such as inherit_listeners() returns for another process.
            raise ValueError("listeners must be one or more: nothing would be served")
        if len({id(listener) for listener in given}) < len(given):
            raise ValueError("listeners must be different ones: one was given twice")


def check_stream(stream: object, server: object) -> None:
    """Check the stream to serve on, and the server that it joins.

    Raises:
        TypeError: The stream is no Trio stream, or the server is neither a Server nor
            None.
    """
    # Not by its class: a wrapper that only passes calls on may work.
    if not _has(stream, "receive_some", "aclose"):
        raise _refuse("stream", "a trio.abc.Stream", stream)
    if not isinstance(server, Server | None):
        raise _refuse("server", "a Server or None", server)


def _has(given: object, *methods: str) -> bool:
    return not isinstance(given, type) and all(hasattr(given, name) for name in methods)


def _refuse(argument: str, wanted: str, given: object, of: str = "") -> TypeError:
    return TypeError(f"{argument} must be {wanted}, not {of}{name_kind(given)}")


def _find_flags(function: object) -> int:
    # Return the flags of the code that a call runs, 0 if that is not known.
    while isinstance(function, partial):
        function = cast("partial[object]", function).func
    # A bound method has the attribute, too; another object has a method for its call.
    for found in (function, getattr(function, "__call__", None)):  # noqa: B004
        code = getattr(found, "__code__", None)
        if isinstance(code, CodeType):
            return code.co_flags
    return 0


def _takes_one(function: Callable[..., object]) -> bool:
    # Whether a call with one argument is possible, as far as that is known.
    code = getattr(function, "__code__", None)
    own = isinstance(function, MethodType)
    if (
        isinstance(code, CodeType)
        and code.co_argcount == 1 + own
        and not code.co_kwonlyargcount
    ):
        return True  # The usual case, without the time that a signature takes.
    return _takes(function, None)


def _takes(function: Callable[..., object], *arguments: object) -> bool:
    found = _find_signature(function)
    try:
        if found is not None:
            found.bind(*arguments)
    except TypeError:
        return False
    return True


def _find_signature(function: Callable[..., object]) -> inspect.Signature | None:
    if hasattr(function, "__signature__"):
        return None  # It may be that of another function.
    if not isinstance(
        function, FunctionType | MethodType | BuiltinMethodType | partial
    ):
        # Not of the object: inspect would take a static method for one with a self.
        function = cast("Any", function).__call__
    try:
        # A wrapper may well give more arguments to the function that it wraps.
        return inspect.signature(
            cast("Callable[..., object]", function), follow_wrapped=False
        )
    except (ValueError, TypeError):
        return None  # Some functions in C have none.


def _describe_parameters(function: Callable[..., object]) -> str:
    found = str(_find_signature(function))
    if found.startswith("(scope, receive, send)"):
        found += ", as ASGI has it"
    return found
