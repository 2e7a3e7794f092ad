"""Which worker is started, drained or killed, and when; nothing is forked here."""

from __future__ import annotations

import logging
import math

import pytest

from trio_upgrade._workers.fleet import (
    Announce,
    Drain,
    EndGrace,
    Fleet,
    Kill,
    Leave,
    Start,
    Step,
    Vacate,
    describe_status,
)

GRACE, READY = 10, 60
# How a worker may die, and how the log says it.
KILLED = -9


class Played:
    """A fleet whose steps are taken at once, and a clock that stands still.

    Attributes:
        steps: All steps so far but the starts.
        now: The time.
    """

    def __init__(
        self, workers: int = 2, *, grace: float = GRACE, delay: float = 0
    ) -> None:
        self.fleet = Fleet(workers, grace=grace, ready_timeout=READY, delay=delay)
        self.steps: list[Step] = []
        self.now = 0.0
        self._next_pid = 100
        self.play()

    def play(self) -> list[Step]:
        """Take the next steps; workers get their process ids from 100 on."""
        steps = self.fleet.decide(self.now)
        for step in steps:
            if isinstance(step, Start):
                self.fleet.started(step, self._next_pid, self.now)
                self._next_pid += 1
        assert self.fleet.decide(self.now) == []
        return steps

    def ready(self, *pids: int) -> list[Step]:
        for pid in pids:
            self.fleet.ready(pid)
        return self.play()

    def end(self, pid: int, status: int = 0) -> list[Step]:
        self.fleet.ended(pid, status, self.now)
        return self.play()

    def wait(self) -> list[Step]:
        """Let the time pass until the next deadline."""
        assert self.fleet.next_deadline < math.inf
        self.now = self.fleet.next_deadline
        return self.play()


@pytest.fixture
def played() -> Played:
    """Two workers that are ready, 100 and 101."""
    played = Played()
    assert played.ready(100, 101) == [Announce()]
    return played


################################################################
# Start and death
################################################################


def test_all_places_are_filled() -> None:
    """Each place gets a worker at once, and that is all until one says something."""
    fleet = Fleet(2, grace=GRACE, ready_timeout=READY)
    starts = fleet.decide(0)
    assert starts == [Start(0), Start(1)]
    assert fleet.next_deadline < 0
    for pid, step in enumerate(starts):
        assert isinstance(step, Start)
        fleet.started(step, pid, 0)

    assert fleet.pids == [0, 1]
    assert fleet.next_deadline == READY


def test_all_are_announced_once() -> None:
    """When the last worker is ready this is announced, and never again."""
    played = Played()

    assert played.ready(100) == []
    assert played.ready(101) == [Announce()]
    assert played.fleet.next_deadline == math.inf
    assert played.end(100, KILLED) == [Start(0)]
    assert played.ready(102) == []


def test_dead_worker_is_replaced(played: Played, caplog) -> None:
    """The first one that dies is replaced at once, in its own place."""
    assert played.end(101, KILLED) == [Start(1)]
    assert played.fleet.pids == [100, 102]
    assert "worker 101 ended by itself, killed by SIGKILL" in caplog.text


def test_worker_that_returns_is_replaced(played: Played) -> None:
    """A worker whose main returns by itself has died, too, whatever its status."""
    assert played.end(100, 0) == [Start(0)]


def test_second_death_waits(played: Played) -> None:
    """If another worker dies soon, no connection has to wait for its successor."""
    played.end(100, KILLED)
    played.ready(102)
    assert played.end(101, KILLED) == [Vacate(1)]
    assert played.fleet.next_deadline == 1
    assert played.wait() == [Start(1)]
    assert played.ready(103) == []


def test_five_deaths_end_all(played: Played, caplog) -> None:
    """With the fifth death within a minute the others drain, and the end is a failure."""
    victim = 100
    for successor in (102, 103, 104, 105):
        played.end(victim, KILLED)
        if successor > 102:
            played.wait()
        played.ready(successor)
        victim = successor
    assert played.end(105, KILLED) == [Drain(101, last=True)]
    assert not played.fleet.is_over
    assert played.end(101) == []

    assert played.fleet.is_over
    assert played.fleet.failed
    assert "5 workers died within 60 seconds: the others drain" in caplog.text


@pytest.mark.parametrize("status", [0, 1, KILLED])
def test_death_before_it_is_ready_ends_all(status: int, caplog) -> None:
    """If a worker ends before it is ready, the others drain: it would end again."""
    played = Played()
    played.ready(100)

    assert played.end(101, status) == [Drain(100, last=True)]
    assert played.fleet.failed
    assert "ended before it was ready" in caplog.text


def test_successor_that_dies_before_it_is_ready_ends_all(played: Played) -> None:
    """The same holds for a worker that fills the place of one that died."""
    played.end(100, KILLED)

    assert played.end(102, 1) == [Drain(101, last=True)]
    assert played.fleet.failed


def test_never_ready() -> None:
    """A worker that is not ready in time is killed, once."""
    played = Played(1)

    assert played.wait() == [Kill(100)]
    assert played.now == READY
    assert played.fleet.next_deadline == math.inf
    assert played.end(100, KILLED) == []
    assert played.fleet.is_over
    assert played.fleet.failed


def test_system_cannot_start_a_worker(caplog) -> None:
    """A fork that fails is tried again, later and later, and then given up."""
    fleet = Fleet(1, grace=GRACE, ready_timeout=READY)
    now = 0.0
    times = []
    while not fleet.is_over:
        for step in fleet.decide(now):
            if isinstance(step, Start):
                fleet.not_started(step, "no memory", now)
                times.append(now)
        now = max(now, min(fleet.next_deadline, 1000))

    assert times == [0, 0, 1, 3, 7]
    assert fleet.failed
    assert "no worker could be started: no memory" in caplog.text


################################################################
# The end
################################################################


def test_stop(played: Played, caplog) -> None:
    """All drain at once, as the last ones to accept; then it is over."""
    caplog.set_level(logging.INFO)
    played.fleet.stop(played.now)

    assert played.play() == [Drain(100, last=True), Drain(101, last=True)]
    assert played.end(100) == []
    assert not played.fleet.is_over
    played.end(101)
    assert played.fleet.is_over
    assert not played.fleet.failed
    assert "worker 101 has drained" in caplog.text


def test_stop_twice(played: Played) -> None:
    """The second one ends the grace of each worker, a third one changes nothing."""
    played.fleet.stop(played.now)
    played.play()
    played.fleet.stop(played.now)

    assert played.play() == [EndGrace(100), EndGrace(101)]
    played.fleet.stop(played.now)
    assert played.play() == []
    assert played.fleet.next_deadline == 5


def test_stop_after_a_failure(played: Played) -> None:
    """A drain by a failure has its grace also after the first signal."""
    played.fleet.fail()
    played.play()
    played.fleet.stop(played.now)
    assert played.play() == []
    played.fleet.stop(played.now)

    assert played.play() == [EndGrace(100), EndGrace(101)]


def test_stop_while_starting() -> None:
    """Workers that are not ready are told to end, too, and nothing is announced."""
    played = Played()
    played.fleet.stop(played.now)

    assert played.play() == [Drain(100, last=True), Drain(101, last=True)]
    assert played.ready(100) == []
    assert played.end(100) == []
    assert played.end(101) == []
    assert not played.fleet.failed


def test_stop_while_a_place_is_empty(played: Played) -> None:
    """No worker is started any more."""
    played.end(100, KILLED)
    played.ready(102)
    played.end(102, KILLED)
    played.fleet.stop(played.now)

    assert played.play() == [Drain(101, last=True)]
    assert played.fleet.next_deadline == GRACE + 5


def test_drain_that_takes_too_long(played: Played, caplog) -> None:
    """A worker that still exists 5 seconds after its grace is killed: a failure."""
    played.fleet.stop(played.now)
    played.play()
    played.end(100)

    assert played.wait() == [Kill(101)]
    assert played.now == GRACE + 5
    played.end(101, KILLED)
    assert played.fleet.is_over
    assert played.fleet.failed
    assert "worker 101 takes too long to drain: it is killed" in caplog.text
    assert "worker 101 ended while it drained, killed by SIGKILL" in caplog.text


def test_without_a_grace() -> None:
    """Without a limit nothing is killed, until the second signal."""
    played = Played(1, grace=math.inf)
    played.ready(100)
    played.fleet.stop(played.now)
    played.play()
    assert played.fleet.next_deadline == math.inf
    played.fleet.stop(played.now)
    played.play()

    assert played.wait() == [Kill(100)]


################################################################
# Restarts
################################################################


def test_restart_goes_one_after_the_other(played: Played) -> None:
    """The new worker is ready before the old one drains, which ends before the next."""
    played.fleet.restart()

    assert played.play() == [Start(0, replaces=100)]
    assert played.ready(102) == [Drain(100, last=False)]
    assert played.end(100) == [Start(1, replaces=101)]
    assert played.ready(103) == [Drain(101, last=False)]
    assert played.end(101) == []
    assert played.fleet.pids == [102, 103]


def test_restart_before_all_are_ready() -> None:
    """A restart waits until every place has a worker that is ready."""
    played = Played()
    played.ready(100)
    played.fleet.restart()

    assert played.play() == []
    assert played.ready(101) == [Start(0, replaces=100), Announce()]


def test_restart_waits_for_an_empty_place(played: Played) -> None:
    """A place without a worker is filled first."""
    played.end(100, KILLED)
    played.ready(102)
    played.end(102, KILLED)
    played.fleet.restart()

    assert played.play() == []
    assert played.wait() == [Start(0)]
    assert played.ready(103) == [Start(1, replaces=101)]


def test_restart_during_a_restart(played: Played) -> None:
    """Workers started before the last signal are replaced once more, also new ones."""
    played.fleet.restart()
    played.play()
    played.ready(102)
    played.fleet.restart()
    played.end(100)
    played.ready(103)
    assert played.end(101) == [Start(0, replaces=102)]


def test_restart_that_fails(played: Played, caplog) -> None:
    """If the new worker ends before it is ready, the old ones stay; no death counts."""
    for pid in range(102, 110):
        played.fleet.restart()
        assert played.play() == [Start(0, replaces=100)]
        assert played.end(pid, 1) == []

    assert played.fleet.pids == [100, 101]
    assert not played.fleet.failed
    assert "the restart is given up, and the old workers stay" in caplog.text


def test_restart_that_the_system_refuses(played: Played) -> None:
    """If no further worker can be started, the old ones stay."""
    played.fleet.restart()
    (step,) = played.fleet.decide(0)
    assert isinstance(step, Start)
    played.fleet.not_started(step, "no memory", 0)

    assert played.play() == []
    assert played.fleet.pids == [100, 101]


def test_old_worker_dies_meanwhile(played: Played) -> None:
    """If the old worker dies before the new one is ready, this one fills its place."""
    played.fleet.restart()
    played.play()

    assert played.end(100, KILLED) == []
    assert played.ready(102) == [Start(1, replaces=101)]


def test_old_worker_that_fails_to_drain(played: Played) -> None:
    """An error of a worker that drains for a restart is not the fault of the others."""
    played.fleet.restart()
    played.play()
    played.ready(102)

    assert played.end(100, 1) == [Start(1, replaces=101)]
    assert not played.fleet.failed


def test_another_worker_dies_meanwhile(played: Played) -> None:
    """A death during a restart is healed at once, and then the restart goes on."""
    played.fleet.restart()
    played.play()
    assert played.end(101, KILLED) == [Start(1)]
    assert played.ready(102) == [Drain(100, last=False)]
    assert played.end(100) == []
    assert played.ready(103) == []


def test_single_replacement(played: Played) -> None:
    """A worker that asks for it is replaced, and no other one."""
    played.fleet.replace(101)

    assert played.play() == [Start(1, replaces=101)]
    assert played.ready(102) == [Drain(101, last=False)]
    assert played.end(101) == []


def test_stop_during_a_restart(played: Played) -> None:
    """All that have not been told so far drain as the last ones."""
    played.fleet.restart()
    played.play()
    played.ready(102)
    played.fleet.stop(played.now)

    assert played.play() == [Drain(101, last=True), Drain(102, last=True)]
    for pid in (100, 101, 102):
        played.end(pid)
    assert played.fleet.is_over
    assert not played.fleet.failed


@pytest.mark.parametrize(
    ("status", "words"),
    [(3, "status 3"), (-15, "killed by SIGTERM"), (-40, "killed by signal 40")],
)
def test_status_in_words(status: int, words: str) -> None:
    """A signal has its name in the log, if it has one."""
    assert describe_status(status) == words


################################################################
# The delay
################################################################


def test_delay() -> None:
    """After a signal the workers are told that they will leave, and drain later."""
    played = Played(delay=5)
    played.ready(100, 101)
    played.fleet.stop(played.now)

    assert played.play() == [Leave(100), Leave(101)]
    # One that dies meanwhile is replaced, and told as soon as it is ready.
    assert played.end(100, KILLED) == [Start(0)]
    assert played.ready(102) == [Leave(102)]
    assert played.wait() == [Drain(101, last=True), Drain(102, last=True)]
    assert played.now == 5
    assert played.end(101) == played.end(102) == []
    assert played.fleet.is_over
    assert not played.fleet.failed


@pytest.mark.parametrize("way", ["restart", "replace"])
def test_no_replacement_in_the_delay(way: str) -> None:
    """A signal to the whole group of processes, too, lets all serve until its end."""
    played = Played(delay=5)
    played.ready(100, 101)
    played.fleet.stop(played.now)
    if way == "restart":
        played.fleet.restart()
    else:
        played.fleet.replace(100)
        played.fleet.replace(101)

    assert played.play() == [Leave(100), Leave(101)]
    assert played.wait() == [Drain(100, last=True), Drain(101, last=True)]
    assert played.now == 5


def test_delay_is_ended() -> None:
    """A second signal ends the delay, and the grace with it."""
    played = Played(1, delay=5)
    played.ready(100)
    played.fleet.stop(played.now)
    played.play()
    played.fleet.stop(played.now)

    assert played.play() == [Drain(100, last=True), EndGrace(100)]


def test_failure_during_the_delay() -> None:
    """If something is wrong the delay is over."""
    played = Played(delay=5)
    played.ready(100)
    played.fleet.stop(played.now)
    played.play()

    assert played.end(101, 1) == [Drain(100, last=True)]
    played.fleet.stop(played.now)
    assert played.fleet.failed
    assert played.end(100) == []
    assert played.fleet.next_deadline == math.inf
