# A server as an async context manager.
#
# nursery.start() knows nothing of the arguments: a type checker sees neither a wrong one
# nor a Server, and keyword arguments need functools.partial.  A ParamSpec passes all of
# them on, and works with mypy and pyright for every serve_* function that has listeners.
from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NoReturn, ParamSpec, cast, final

import trio

from .._util import find_leaves, name_kind, public
from .observers import LOGGER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from .server import Server

P = ParamSpec("P")
_WANTED = (
    "open_server() takes a function such as serve_tcp and its arguments, as in "
    "open_server(serve_tcp, app, 1337)"
)


@public
def open_server(
    serve: Callable[P, Awaitable[None]], /, *args: P.args, **kwargs: P.kwargs
) -> AbstractAsyncContextManager[Server, None]:
    """Run a server for as long as a block runs.

    ::

        async with open_server(serve_tcp, app, 1337, host="127.0.0.1") as server:
            print(server.url)
            await trio.sleep_forever()

    Type checkers see the arguments of ``serve`` and that ``server`` is a
    :class:`Server`, which they do not with ``nursery.start(partial(serve_tcp, …))``. Both
    do the same: the server runs in a task of its own, and connections are accepted when
    the block begins.

    When the block is left, in any way, the server is cancelled, and the block is over
    when every socket is closed. To let clients finish, end the block with
    ``await server.drain(grace)``; a server that has been drained ends without an error,
    and the block goes on.

    What the block raises comes out as it is. If the server fails, as with ``strict=True``
    at a bug of the app, the block is cancelled and the failure comes out alone. If both
    fail, the failure of the server is logged to ``trio_upgrade.server``.

    Args:
        serve: :func:`serve_tcp`, :func:`serve_ssl_over_tcp`, :func:`serve_unix` or
            :func:`serve_listeners`, or a function of yours around them that passes on
            ``task_status``.
        args: Its arguments.
        kwargs: Its keyword arguments, but for ``task_status``.

    Returns:
        An async context manager that gives the :class:`Server`. Entering it raises what
        ``serve`` raises before it serves, and then nothing is left open; cancelled
        meanwhile, neither.

    Raises:
        TypeError: ``serve`` cannot be called, or ``task_status`` is given.
    """
    if not callable(serve):
        raise TypeError(f"{_WANTED}, not {name_kind(serve)}")
    if "task_status" in kwargs:
        raise TypeError("open_server() gives task_status itself")

    async def run(task_status: trio.TaskStatus[Server]) -> None:
        try:
            # A ParamSpec cannot say that serve() has this keyword as well.
            await cast("Callable[..., Awaitable[None]]", serve)(
                *args, task_status=task_status, **kwargs
            )
        except TypeError as exc:
            below = exc.__traceback__ and exc.__traceback__.tb_next
            # Raised by the call itself: an app instead of serve_tcp, for example.
            if below is None:
                exc.add_note(_WANTED)
            raise

    return _ServerScope(run)


@final
class _ServerScope(AbstractAsyncContextManager["Server", None]):
    # Not an async generator: nothing of ours is open across a yield.

    def __init__(
        self, run: Callable[[trio.TaskStatus[Server]], Awaitable[None]]
    ) -> None:
        self._serve = run
        self._manager = trio.open_nursery()
        self._scope: trio.CancelScope
        # What the server has raised, without Cancelled.
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Server:
        nursery = await self._manager.__aenter__()
        self._scope = nursery.cancel_scope
        try:
            server: Server = await nursery.start(self._run, name="trio_upgrade server")
        except BaseException as exc:
            await self._end()
            # None: start() was cancelled, or the function never called started().
            _raise(_unwrap(self._take_failure() or exc))
        return server

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        cancelled = await self._end()
        failure = self._take_failure()
        if failure is None:
            if exc_value is None and cancelled is not None:
                raise cancelled
            return
        # Our nursery has cancelled the block; that must not leave it.
        own = None if exc_value is None else _remove_cancelled(exc_value)
        if own is None:
            _raise(_unwrap(failure))
        LOGGER.error("the server failed, as did the block", exc_info=failure)
        if own is not exc_value:
            _raise(own)

    async def _run(self, *, task_status: trio.TaskStatus[Server]) -> None:
        try:
            await self._serve(task_status)
        except BaseException as exc:
            self._failure = _remove_cancelled(exc)
            raise

    async def _end(self) -> BaseException | None:
        # Returns what the nursery raised.  Except for Cancelled, for a scope around us,
        # that is the failure, in a group.  The nursery does not get the exception of the
        # block, which it would put into a group.
        self._scope.cancel()
        try:
            await self._manager.__aexit__(None, None, None)
        except BaseException as exc:
            return exc
        return None

    def _take_failure(self) -> BaseException | None:
        failure, self._failure = self._failure, None
        return failure


def _remove_cancelled(exc: BaseException) -> BaseException | None:
    if not any(isinstance(leaf, trio.Cancelled) for leaf in find_leaves(exc)):
        # The same object: split() may return a copy.
        return exc
    if isinstance(exc, trio.Cancelled):
        return None
    return cast("BaseExceptionGroup[BaseException]", exc).split(trio.Cancelled)[1]


def _unwrap(exc: BaseException) -> BaseException:
    # The nurseries of the server have put what one of their tasks raised into groups.
    leaves = find_leaves(exc)
    return leaves[0] if len(leaves) == 1 else exc


def _raise(exc: BaseException) -> NoReturn:
    # The exception that is being handled would become its context, although the two have
    # nothing to do with each other.
    context = exc.__context__
    try:
        raise exc
    finally:
        exc.__context__ = context
        del exc, context
