"""Proxies in front of two workers that are replaced under load."""

from __future__ import annotations

import pytest

from benchmarks.restart.restart import behind

# Every worker is replaced once.
TIMES = 2


@pytest.mark.parametrize("settings", ["kept", "once"])
@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(name, marks=pytest.mark.peer(name))
        for name in ("nginx", "haproxy", "caddy")
    ],
)
async def test_no_answer_is_lost(proxy: str, settings: str) -> None:
    """Each client gets its answer, whether or not the proxy keeps its connections.

    Without kept connections the proxy repeats no request, so that a worker which loses
    one is seen.
    """
    tally = await behind(TIMES, proxy=proxy, settings=settings)

    assert not tally.lost
    assert tally.answered == tally.connections > 100
