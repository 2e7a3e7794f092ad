# Cancels a task at its n-th step, for every n.  A Trio instrument counts the task's steps
# and cancels its scope at the n-th; then n + 1 is tried, until the task gets through.
from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import trio

from trio_upgrade.testing import ScriptedPeer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at a given step of the task that created the instrument."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self._left = step
        self._task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self.scope.cancel()


async def cancel_everywhere(
    run: Callable[[ScriptedPeer], Awaitable[None]],
    *script: bytes,
    then: Literal["end", "silence"] = "end",
) -> int:
    """Run a client or server again and again, cancelled at one step later each time.

    Args:
        run: Runs it on the stream that it gets, which it has to close.
        script: The packets of the peer.
        then: What the peer does after the script.

    Returns:
        The number of steps, when a run was not cancelled any more.
    """
    for step in range(1, 1000):
        peer = ScriptedPeer(*script, then=then)
        instrument = CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                await run(peer)
        finally:
            trio.lowlevel.remove_instrument(instrument)

        assert peer.closed, f"left open when cancelled at step {step}"
        if not instrument.scope.cancelled_caught:
            return step
    raise AssertionError("it did not end")
