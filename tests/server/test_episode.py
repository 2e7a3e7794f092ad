"""When an event that comes often is logged."""

from __future__ import annotations

import trio

from trio_upgrade._server.episode import Episode


async def test_first_of_each_episode(autojump_clock) -> None:
    """Only the first event counts, until more than ten seconds pass without one."""
    episode = Episode()
    began = []
    for pause in (0, 1, 10, 10, 11, 0, 10.5):
        await trio.sleep(pause)
        began.append(episode.begins())

    assert began == [True, False, False, False, True, False, True]


async def test_independent(autojump_clock) -> None:
    """Events of one kind do not hide those of another."""
    assert Episode().begins()
    assert Episode().begins()
