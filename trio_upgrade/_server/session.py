# One connection's task, from accept to close: HTTP, what it has switched to, and the end.
# The task owns the connection; it is closed here and nowhere else.
from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

from .._streams.closing import close_forcefully, close_in_stages, close_nowait
from .._streams.socket_stream import DirectSocketStream
from .._streams.underlying import find_peer, reset_on_close
from .._util import split_errors
from .exchange import is_loss
from .records import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._streams.underlying import Peer
    from .request import Request
    from .request_loop import RequestLoop, Switched
    from .state import ServerState


@final
class Session:
    """One connection of a server, from accept to close.

    Args:
        make_loop: Makes what speaks HTTP on it.
        transport: The connection; it is owned from now on.
        state: What it shares with the other connections of its server.
        outer: The scope that this is served in. It is cancelled when a connection that
            has switched must end, which is when all of them must.

    Attributes:
        abort: Whether to end by a reset, so that the peer cannot take the cut for an
            end.
        began: When it was accepted, if an observer wants to know.
        idle: Whether no request is under way.
        protocol: What it has switched to.
        reason: Why it would end now.
        requests: How many have come.
        scope: What ends whatever this does now, when a deadline has passed.
        stream: What is to be closed: the transport, or what the last request made of it.
        task: The task that serves it, once it runs.
        depth: How many nurseries that had open by then.
    """

    __slots__ = (
        "_cause",
        "_make_loop",
        "_outer",
        "_state",
        "abort",
        "began",
        "depth",
        "idle",
        "protocol",
        "reason",
        "requests",
        "scope",
        "stream",
        "task",
    )

    def __init__(
        self,
        make_loop: Callable[[Session], RequestLoop],
        transport: trio.abc.Stream,
        state: ServerState,
        outer: trio.CancelScope,
    ) -> None:
        self._make_loop = make_loop
        self._state = state
        self._outer = outer
        self.stream: trio.abc.Stream = transport
        self.scope: trio.CancelScope = outer
        self._cause = EndReason.CANCELLED
        self.abort: bool = False
        self.requests: int = 0
        self.protocol: str | None = None
        self.reason: EndReason = EndReason.CANCELLED
        # Only an observer wants to know.
        self.began: float = 0.0 if state.on_end is None else trio.current_time()
        # Before its task has begun it has no scope of its own that a drain could cancel;
        # it looks by itself then.
        self.idle: bool = False
        self.task: trio.lowlevel.Task | None = None
        self.depth: int = 0
        self._state.add(self)

    async def serve(self) -> None:
        """Serve the connection to its end, and close it on every path.

        Whatever goes wrong in it costs this connection alone, and unless it is the
        peer's doing it is logged; only where the server is strict errors come out.
        """
        state, self.task = self._state, trio.lowlevel.current_task()
        self.depth = len(self.task.child_nurseries)
        # Later it may be gone.
        peer = find_peer(self.stream) if state.wants_peers else None
        try:
            try:
                switched = await self._speak_http()
                if switched is not None:
                    # Here and nowhere deeper: it may last for days, and each frame that
                    # waits takes memory.
                    request, stream, handler = switched
                    del switched
                    try:
                        await handler(request, stream, stream.head)
                        self.reason = EndReason.RETURNED
                    except BaseException as exc:
                        self.give_up(
                            request, exc, lost=stream.outermost.broken, switched=True
                        )
                    finally:
                        self.stream = stream.outermost
                if self.abort or state.is_over:
                    await self._close_abruptly()
                elif not close_nowait(self.stream):
                    with trio.CancelScope() as self.scope:
                        await close_in_stages(self.stream, state.limits.linger)
            except BaseException:
                if self.reason is EndReason.CANCELLED:
                    # When all must end, the scope of all is cancelled as well.
                    self.reason = self._cause
                state.deadlines.disarm(self)
                await self._close_abruptly()
                raise
        except BaseException as exc:
            self._let_out(exc, peer)
        finally:
            state.remove(self, upgraded=self.protocol is not None)
            if state.on_end is not None:
                state.report_end(self, self.stream, peer, self.reason)

    async def _speak_http(self) -> Switched | None:
        state = self._state
        loop = self._make_loop(self)
        try:
            # To enter a scope and to leave it takes a twentieth of a handshake.  What is
            # here at once does without, for then no deadline needs to cancel anything.
            if not self._may_do_without_scope() or await loop.run_at_once():
                with trio.CancelScope() as self.scope:
                    await loop.run()
            if loop.switched is None:
                # Only the end is left, and that has a bound of its own.
                state.deadlines.disarm(self)
                if loop.http.slow:
                    loop.tell_slow()
                elif self.scope.cancelled_caught:
                    await loop.apologize(self._cause)
                return None
        finally:
            self.abort = self.abort or loop.http.broken
        # No deadline is running any more: from now on it ends with all the others.
        self.scope = self._outer
        if state.is_over:
            self._outer.cancel(reason=self._cause.value)
        return loop.switched

    def _may_do_without_scope(self) -> bool:
        # As long as its first head need not be waited for. What is sent has a scope of
        # its own where it has to wait, and the end of a grace cancels that of all.
        direct = isinstance(self.stream, DirectSocketStream)
        return direct and self._state.limits.response_timeout is None

    async def _close_abruptly(self) -> None:
        if self.abort:
            reset_on_close(self.stream)
        await close_forcefully(self.stream)

    ################################################################
    # Deadlines
    ################################################################

    def expire(self, reason: EndReason) -> None:
        """End what this does now: its time is up."""
        self._cause = reason
        self.scope.cancel(reason=reason.value)

    def head_awaited(self) -> None:
        """Take in that the next head has to be waited for."""
        deadlines = self._state.deadlines
        (deadlines.keep_alive if self.requests else deadlines.header).arm(self)

    def head_began(self) -> None:
        """Take in that some of a head has come, but not all."""
        self.idle = False
        if self.requests:
            self._state.deadlines.keep_alive.disarm(self)
            self._state.deadlines.header.arm(self)

    def head_ended(self) -> None:
        """Take in that all of it has come."""
        self.idle = False
        self._state.deadlines.keep_alive.disarm(self)
        self._state.deadlines.header.disarm(self)

    ################################################################
    # Errors
    ################################################################

    def _let_out(self, exc: BaseException, peer: Peer) -> None:
        errors, rest = split_errors(exc)
        try:
            if self._state.strict or errors is None:
                raise exc
            # A transport that fails to close, or a bug: not the listener's problem.
            self._state.report_error(peer, None, errors)
            if rest is not None:
                raise rest from None
        finally:
            del exc, errors, rest

    def give_up(
        self, request: Request, exc: BaseException, *, lost: bool, switched: bool
    ) -> None:
        """Take in an error to which nothing can be said.

        It is reported, unless it is only what a lost peer looks like. What is no error
        goes on its way.
        """
        errors, rest = split_errors(exc)
        try:
            if errors is None:
                raise exc
            lost = lost and is_loss(errors)
            if rest is not None and self._state.strict and not lost:
                raise exc
            self.abort = switched
            if lost:
                self.reason = EndReason.LOST
            else:
                self.report(request, errors)
            if rest is not None:
                raise rest from None
        finally:
            del exc, errors, rest

    def report(self, request: Request, errors: Exception) -> None:
        """Tell of errors of the app; raise them where the server is strict."""
        self.reason = EndReason.ERROR
        self._state.total_errors += 1
        self._state.report_error(request.peer, request, errors)
        if self._state.strict:
            self.abort = True
            raise errors
