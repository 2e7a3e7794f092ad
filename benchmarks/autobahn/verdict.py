"""What the reports of Autobahn's testsuite say, as one verdict.

``wstest`` exits with 0 whatever it finds, and forgets cases that it could not run. So its
``index.json`` is read, and each case in it must have an expected result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# All cases of autobahntestsuite 25.10.1, and those of its parts 1 to 7 and 10.
ALL_CASES, QUICK_CASES = 517, 247
QUICK = [*(f"{part}.*" for part in range(1, 8)), "10.*"]

FINE = {"OK", "INFORMATIONAL"}
# A choice of websockets: a close frame between the fragments of a message is an error,
# and answered with 1002; the suite wants 1000.
MAY_FAIL = {"7.1.5"}
# Both results are allowed.  The frame that breaks a rule comes right after a message, of
# which the echo is then not sent (3.*, 4.*, 5.15); or a text is found to be no UTF-8 only
# when all of it has come (6.4.*).
MAY_BE_LATE = {
    *("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5"),
    *("5.15", "6.4.1", "6.4.2", "6.4.3", "6.4.4"),
}


@dataclass(frozen=True)
class Verdict:
    """What one report says.

    Attributes:
        agent: The program that was tested.
        counts: How many cases have each result.
        mistakes: One line for each case that has a result which is not expected, and one
            if cases are missing.
    """

    agent: str
    counts: Mapping[str, int]
    mistakes: list[str]

    def __str__(self) -> str:
        parts = [f"{count} {name}" for name, count in sorted(self.counts.items())]
        line = f"{self.agent}: {sum(self.counts.values())} cases: {', '.join(parts)}"
        return "\n  ".join([line, *self.mistakes])


def judge(reports: Path, cases: int) -> Verdict:
    """Judge the report in a folder, which has to be of one agent.

    Args:
        reports: The folder into which ``wstest`` has written.
        cases: How many cases there have to be.
    """
    ((agent, results),) = json.loads((reports / "index.json").read_text()).items()
    counts: dict[str, int] = {}
    mistakes: list[str] = []
    if len(results) < cases:
        mistakes.append(f"only {len(results)} of {cases} cases were run")
    for case, result in sorted(results.items()):
        behavior, close = result["behavior"], result["behaviorClose"]
        counts[behavior] = counts.get(behavior, 0) + 1
        expected = (
            behavior in FINE
            or (behavior == "NON-STRICT" and case in MAY_BE_LATE)
            or (behavior == "FAILED" and case in MAY_FAIL)
        )
        if not expected:
            mistakes.append(f"{case} is {behavior}")
        if close not in FINE and (case not in MAY_FAIL or close == "UNCLEAN"):
            mistakes.append(f"{case} is closed: {close}")
    return Verdict(agent, counts, mistakes)
