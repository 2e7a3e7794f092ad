# When a worker that died is replaced, and when the supervisor gives up.  No I/O, and no
# clock of its own.
from __future__ import annotations

from collections import deque
from typing import final

# So many deaths within so many seconds, and no more workers are started: the fault is
# not in one worker, and whatever started the supervisor should learn of it.
MOST_DEATHS = 5
DEATH_SECONDS = 60.0
# The first worker that dies is replaced at once.  If another one dies within
# DEATH_SECONDS, it is replaced after the first of these delays, which then doubles.
_FIRST_DELAY = 1.0
_LONGEST_DELAY = 30.0


@final
class Deaths:
    """The workers that died lately, of all places together.

    Not for each place apart: what makes workers die (a bad request that clients repeat,
    too little memory) is seldom the fault of one place.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST_DEATHS)
        self._delay = 0.0

    def add(self, now: float) -> float | None:
        """Count a death.

        Returns:
            The seconds until a new worker may be started; None if there were too many
            deaths.
        """
        if self._times and now - self._times[-1] <= DEATH_SECONDS:
            self._delay = min(max(_FIRST_DELAY, 2 * self._delay), _LONGEST_DELAY)
        else:
            self._delay = 0.0
        self._times.append(now)
        full = len(self._times) == MOST_DEATHS
        if full and now - self._times[0] <= DEATH_SECONDS:
            return None
        return self._delay
