"""How long a place stays empty after a death, and when there were too many."""

from __future__ import annotations

from itertools import pairwise

from trio_upgrade._workers.deaths import Deaths


def add_all(*times: float) -> list[float | None]:
    deaths = Deaths()
    return [deaths.add(time) for time in times]


def test_first_is_replaced_at_once() -> None:
    """A single death costs no time, nor does one long after another."""
    assert add_all(0, 61, 130) == [0, 0, 0]


def test_delay_doubles() -> None:
    """Deaths that follow each other cost 1 second, then twice as much, up to 30."""
    delays = add_all(*range(0, 20 * 8, 20))

    assert delays == [0, 1, 2, 4, 8, 16, 30, 30]


def test_delay_begins_again() -> None:
    """After a minute without a death the next one is replaced at once."""
    assert add_all(0, 1, 2, 62.5, 63) == [0, 1, 2, 0, 1]


def test_fifth_within_a_minute_is_too_much() -> None:
    """The fifth death within 60 seconds ends everything, a slower one does not."""
    assert add_all(0, 10, 20, 30, 60)[-1] is None
    assert add_all(0, 20, 30, 40, 60.5)[-1] == 8
    assert add_all(0, 20, 30, 40, 61, 70)[-1] is None


def test_any_five_count() -> None:
    """The minute may begin at any death."""
    times = [0, 50, 99, 100, 101, 102]

    assert all(later - former <= 60 for former, later in pairwise(times))
    assert add_all(*times)[-1] is None
    assert None not in add_all(*times)[:-1]
