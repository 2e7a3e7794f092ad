"""The task that watches the client of a streamed answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from trio_upgrade import Limits
from trio_upgrade._server.silence_watch import SilenceWatch


class Queue:
    """Holds what is armed, as the server's deadlines do."""

    def __init__(self) -> None:
        self.armed: list[Any] = []

    def arm(self, watch: Any) -> None:
        self.armed.append(watch)

    def disarm(self, watch: Any) -> None:
        if watch in self.armed:
            self.armed.remove(watch)


async def test_answer_over_before_its_watch_has_run() -> None:
    """The task was started and has not run yet: it ends at once, and is not left."""
    queue = Queue()
    deadlines: Any = SimpleNamespace(unwatched=queue)
    nothing: Any = None  # It would fail if it were used.
    watch = SilenceWatch(nothing, nothing, deadlines, Limits())

    # Due: the reaper takes it out and starts the task.
    (run,) = queue.armed
    queue.disarm(run)
    watch.stop()
    await run()
