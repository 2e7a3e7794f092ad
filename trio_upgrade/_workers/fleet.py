# All decisions of the supervisor: which worker to start, drain or kill, and when.  No
# I/O: the supervisor reports what happened, asks for the next steps, and takes them.
#
# A worker goes through these stages; each place has one worker that is not leaving, or
# two while the newer one replaces the older one:
#
#     STARTING --ready--> READY --told to drain--> LEAVING --ended--> (gone)
#         |                 |
#         |                 +--died--> (gone), and its place is filled again
#         +--died--> (gone), and the others are drained, unless it was to replace one
#                    that still serves: then that one goes on
from __future__ import annotations

import logging
import math
import signal
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias, final

from .deaths import DEATH_SECONDS, MOST_DEATHS, Deaths

LOGGER = logging.getLogger("trio_upgrade.workers")

# Seconds from the end of the grace to SIGKILL.  A worker whose connections are all cut
# may still have to clean up, but one that is blocked has no other end.
KILL_SECONDS = 5.0


class Stage(Enum):
    """The stage of a worker; see the top of this module."""

    STARTING = auto()
    READY = auto()
    LEAVING = auto()


@dataclass(slots=True)
class Member:
    """A worker process.

    Attributes:
        place: Its place, from 0.
        stage: Its stage.
        deadline: When it is killed, if it has not moved to its next stage by then.
        replaces: The process id of the worker that drains as soon as this one is ready.
        outdated: Whether it is to be replaced.
        leave_at_once: Whether its grace was ended.
        will_leave: Whether it was told that it will drain.
    """

    place: int
    stage: Stage
    deadline: float
    replaces: int | None = None
    outdated: bool = False
    leave_at_once: bool = False
    will_leave: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker in a place, instead of another one if that is given."""

    place: int
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """Tell a worker that it will drain, for its answers to health checks."""

    pid: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Drain a worker.

    Attributes:
        pid: Its process id.
        last: Whether no other worker goes on accepting from its sockets.
    """

    pid: int
    last: bool


@dataclass(frozen=True, slots=True)
class EndGrace:
    """End the grace of a worker that drains."""

    pid: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a worker that has not ended in time, or is not ready in time."""

    pid: int


@dataclass(frozen=True, slots=True)
class Vacate:
    """Let no connection wait for a worker in a place: for a while it has none."""

    place: int


@dataclass(frozen=True, slots=True)
class Announce:
    """Call the user's function: all workers are ready for the first time."""


Step: TypeAlias = Start | Leave | Drain | EndGrace | Kill | Vacate | Announce


@final
class Fleet:
    """The workers, and what is to be done with them.

    Args:
        workers: How many places there are.
        grace: Seconds that a worker has to drain; infinity for no limit.
        ready_timeout: Seconds that a worker has to become ready; infinity for no limit.
        delay: Seconds from the order to stop until the workers drain.

    Attributes:
        failed: Whether anything ended in another way than it was told to.
        stopping: Whether no more workers are started.
    """

    def __init__(
        self, workers: int, *, grace: float, ready_timeout: float, delay: float = 0
    ) -> None:
        self.failed: bool = False
        self.stopping: bool = False
        self._grace = grace
        self._ready_timeout = ready_timeout
        self._delay = delay
        # When the workers drain, once there is an order to stop.
        self._end_at = math.inf
        self._members: dict[int, Member] = {}
        # The places without a worker, and when they get one.
        self._vacant: dict[int, float] = dict.fromkeys(range(workers), -math.inf)
        self._deaths = Deaths()
        self._announced = False
        self._told = False
        self._grace_ended = False
        self._vacated: list[int] = []

    @property
    def pids(self) -> list[int]:
        """The processes that have not ended."""
        return [*self._members]

    @property
    def is_over(self) -> bool:
        """Whether every worker has ended and none will be started."""
        return self.stopping and not self._members

    @property
    def next_deadline(self) -> float:
        """When there may be something to do although nothing happens."""
        times = [member.deadline for member in self._members.values()]
        return min([*times, *self._vacant.values(), self._end_at])

    ################################################################
    # What happened
    ################################################################

    def stop(self, now: float) -> None:
        """Drain all workers after the delay; called again, end it and their grace."""
        self._grace_ended = self._told
        self._told = True
        if self._grace_ended or self.stopping or not self._delay:
            self._begin_end()
        else:
            self._end_at = now + self._delay

    def fail(self) -> None:
        """Drain all workers because something is wrong."""
        self.failed = True
        self._begin_end()

    def _begin_end(self) -> None:
        self.stopping = True
        self._end_at = math.inf
        self._vacant.clear()

    def restart(self) -> None:
        """Replace all workers that there are, one after the other."""
        for member in self._members.values():
            member.outdated = True

    def replace(self, pid: int) -> None:
        """Replace one worker, which asks for it."""
        self._members[pid].outdated = True

    def started(self, step: Start, pid: int, now: float) -> None:
        """Note that a worker was started, as a step said."""
        self._vacant.pop(step.place, None)
        self._members[pid] = Member(
            step.place, Stage.STARTING, now + self._ready_timeout, step.replaces
        )

    def not_started(self, step: Start, reason: str, now: float) -> None:
        """Note that the system could not start a worker, as a step said."""
        LOGGER.error("no worker could be started: %s", reason)
        if step.replaces is not None:
            self._keep_old()
        else:
            self._bury(step.place, now)

    def ready(self, pid: int) -> None:
        """Note that a worker is ready."""
        member = self._members[pid]
        if member.stage is Stage.STARTING:
            LOGGER.info("worker %d is ready", pid)
            member.stage = Stage.READY
            member.deadline = math.inf

    def ended(self, pid: int, status: int, now: float) -> None:
        """Note that a worker has ended.

        Args:
            pid: The worker.
            status: Its exit status, or less than 0 for the signal that ended it.
            now: The time.
        """
        member = self._members.pop(pid)
        told = member.stage is Stage.LEAVING
        if told and status == 0:
            LOGGER.info("worker %d has drained", pid)
            return
        LOGGER.error(
            "worker %d ended %s, %s",
            pid,
            "while it drained" if told else "by itself",
            describe_status(status),
        )
        if self.stopping:
            self.failed = True
        elif not told:
            self._replace_dead(pid, member, now)

    def _replace_dead(self, pid: int, member: Member, now: float) -> None:
        for other in self._members.values():
            if other.replaces == pid:
                # Its place is already being filled.
                other.replaces = None
                self._count(now)
                return
        if member.stage is Stage.READY:
            self._bury(member.place, now)
        elif member.replaces is not None:
            # What is new does not work, and what is old does (gunicorn #2443).
            self._keep_old()
        else:
            LOGGER.error("a worker ended before it was ready: the others drain")
            self.fail()

    def _keep_old(self) -> None:
        LOGGER.error("the restart is given up, and the old workers stay")
        for member in self._members.values():
            member.outdated = False

    def _bury(self, place: int, now: float) -> None:
        # Fill the place of a worker that died.
        delay = self._count(now)
        if delay is not None:
            self._vacant[place] = now + delay
        if delay:
            self._vacated.append(place)

    def _count(self, now: float) -> float | None:
        delay = self._deaths.add(now)
        if delay is None:
            LOGGER.error(
                "%d workers died within %g seconds: the others drain",
                MOST_DEATHS,
                DEATH_SECONDS,
            )
            self.fail()
        return delay

    ################################################################
    # What to do
    ################################################################

    def decide(self, now: float) -> list[Step]:
        """Return the next steps, each of them only once."""
        if self._end_at <= now:
            self._begin_end()
        if self.stopping:
            steps = self._decide_end(now)
        else:
            steps = [*self._fill(now), *self._hand_over(now), *self._roll()]
            steps += self._warn()
        for pid, member in self._members.items():
            if member.deadline <= now:
                member.deadline = math.inf
                late = "to drain" if member.stage is Stage.LEAVING else "to be ready"
                LOGGER.error("worker %d takes too long %s: it is killed", pid, late)
                steps.append(Kill(pid))
        if not (self._announced or self.stopping or self._vacant):
            stages = [member.stage for member in self._members.values()]
            if Stage.STARTING not in stages:
                self._announced = True
                # The last one: the user's function may raise.
                steps.append(Announce())
        return steps

    def _fill(self, now: float) -> list[Step]:
        vacated, self._vacated = self._vacated, []
        due = [place for place, time in self._vacant.items() if time <= now]
        return [*map(Vacate, vacated), *map(Start, due)]

    def _hand_over(self, now: float) -> list[Step]:
        # Drain the workers whose successors are ready.
        steps: list[Step] = []
        for member in self._members.values():
            if member.stage is Stage.READY and member.replaces is not None:
                steps.append(self._drain(member.replaces, now, last=False))
                member.replaces = None
        return steps

    def _roll(self) -> list[Step]:
        # One after the other: at most one process more than there are places, and all
        # places but one are filled by workers that have served for a while.
        #
        # Not in the delay: all will drain anyway.  systemd, for example, sends SIGTERM to
        # the workers as well, which then ask to be replaced but are to serve on.
        if self._vacant or self._told:
            return []
        oldest = None
        for pid, member in self._members.items():
            if member.stage is not Stage.READY:
                return []
            if member.outdated and oldest is None:
                oldest = Start(member.place, replaces=pid)
        return [] if oldest is None else [oldest]

    def _warn(self) -> list[Step]:
        # Those that become ready in the delay, too.
        if not self._told:
            return []
        warned: list[Step] = []
        for pid, member in self._members.items():
            if member.stage is Stage.READY and not member.will_leave:
                member.will_leave = True
                warned.append(Leave(pid))
        return warned

    def _decide_end(self, now: float) -> list[Step]:
        steps: list[Step] = []
        for pid, member in self._members.items():
            if member.stage is not Stage.LEAVING:
                steps.append(self._drain(pid, now, last=True))
            if self._grace_ended and not member.leave_at_once:
                member.leave_at_once = True
                member.deadline = min(member.deadline, now + KILL_SECONDS)
                steps.append(EndGrace(pid))
        return steps

    def _drain(self, pid: int, now: float, *, last: bool) -> Drain:
        member = self._members[pid]
        member.stage = Stage.LEAVING
        member.deadline = now + self._grace + KILL_SECONDS
        return Drain(pid, last)


def describe_status(status: int) -> str:
    """Describe how a process ended; see :meth:`Fleet.ended`."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        # A real-time signal.
        return f"killed by signal {-status}"
