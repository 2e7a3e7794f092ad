"""How often a figure is measured: in more rounds as long as its rounds differ much."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .programs import Calm

# Rounds that differ by more than this share of their median are not enough.
WIDE = 0.2
# There are at most so many times the planned rounds.
MOST = 3
# Of fewer rounds there is no middle half.
_FEW = 4


def spread(values: Sequence[float]) -> float | None:
    """Return how wide the middle half of the rounds is, as a share of their median.

    Of fewer than four rounds it is the whole range, of one round None. The whole range of
    many rounds would only grow with each further one. The middle half gets narrow again
    if other work has disturbed less than a quarter of the rounds.
    """
    middle = statistics.median(values)
    if len(values) < 2 or not middle:
        return None
    if len(values) < _FEW:
        return (max(values) - min(values)) / middle
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / middle


def is_wide(values: Sequence[float]) -> bool:
    """Return whether these rounds differ too much."""
    return (spread(values) or 0) > WIDE


class Budget:
    """The time of a run.

    Each figure has a share of it for its planned rounds, and a share of some spare time
    for more rounds. Figures leave to the next ones what they do not use. The time that
    was spent waiting for calm moments does not count.

    Args:
        calm: Knows that time.
        seconds: Seconds for planned rounds, to begin with.
        spare: Seconds for more rounds, to begin with.
    """

    def __init__(self, calm: Calm, seconds: float = 0, spare: float = 0) -> None:
        self._calm = calm
        self._end = self._now() + seconds
        self._spare = spare

    def _now(self) -> float:
        return time.monotonic() - self._calm.waited

    def give(self, seconds: float, spare: float) -> None:
        """Add the share of the next figure."""
        paid = min(max(self._now() - self._end, 0), self._spare)
        self._end += paid + seconds
        self._spare += spare - paid

    def allows(
        self, rounds: int, planned: int, rows: Iterable[Sequence[float]]
    ) -> bool:
        """Return whether there should be another round.

        Args:
            rounds: How many there were. The first one is always allowed.
            planned: How many were planned.
            rows: The values of all rounds, for each of the peers.
        """
        if rounds < planned:
            return not rounds or self._now() <= self._end
        return (
            rounds < MOST * planned
            and any(is_wide(values) for values in rows if values)
            and self._now() <= self._end + self._spare
        )


class Rounds:
    """Measures something again and again.

    Args:
        planned: The number of rounds, if they do not differ much.
        seconds: Seconds of one round.
        calm: Is waited for before each round.
        budget: Says whether there may be more rounds.
    """

    def __init__(
        self, planned: int, seconds: float, calm: Calm, budget: Budget
    ) -> None:
        self.seconds = seconds
        self._planned = planned
        self._calm = calm
        self._budget = budget

    def measure(self, once: Callable[[], float]) -> list[float]:
        """Return the values of all rounds.

        Args:
            once: Makes one round, and returns its value.
        """
        values: list[float] = []
        while self._budget.allows(len(values), self._planned, [values]):
            self._calm.wait()
            values.append(once())
        return values
