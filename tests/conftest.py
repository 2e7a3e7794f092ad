# Marks that any test may have, and a time limit for all tests.  If a peer program is not
# found, its tests are skipped, and the reason says which package to install; in CI they
# fail if the program is required.
from __future__ import annotations

import inspect
import os
import shutil
from functools import wraps
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import trio

from trio_upgrade import Limits

from .servers import Scene

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# No test judges the time of an example: another program may have the processor.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")

# Debian's packages whose names differ from the program's.
_PACKAGES = {
    "apache2": "apache2-bin",
    "docker": "docker.io",
    "nc": "netcat-openbsd",
    "node": "nodejs",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "systemd-analyze": "systemd",
    "systemd-socket-activate": "systemd",
}
# Seconds that an async test may take unless --bound says otherwise: many times what the
# slowest test needs.  Under a mock clock the seconds cost no time: it jumps to the limit
# as soon as no task waits for anything earlier.
_BOUND = 60
_MOCK_BOUND = 1_000_000


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Date of every response is the epoch, so that bytes can be compared."""
    monkeypatch.setattr("trio_upgrade._server.dates.time", lambda: 0.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trio_upgrade")
    group.addoption("--ids", help="run only the tests that are marked with this id")
    group.addoption(
        "--bound",
        type=float,
        default=_BOUND,
        help="seconds that an async test may take (%(default)s)",
    )


@pytest.fixture
def make_scene(nursery: trio.Nursery) -> Callable[..., Scene]:
    """Make a server that scripted connections can join; connections do not linger."""
    return lambda **bounds: Scene(nursery, Limits(**{"linger": 0, **bounds}))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("peer"):
        (program,) = mark.args
        if shutil.which(program) is None:
            package = _PACKAGES.get(program, program)
            reason = f"needs {program}: install Debian's package {package}"
            if mark.kwargs.get("required") and os.environ.get("PEERS_REQUIRED"):
                pytest.fail(reason)
            pytest.skip(reason)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    wanted = config.getoption("--ids")
    if wanted is not None:
        items[:] = [item for item in items if wanted in _ids(item)]
    # A test that waits for ever fails, so that the run does not hang.
    bound = config.getoption("--bound")
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            mock = "autojump_clock" in item.fixturenames
            item.obj = _bound(item.obj, _MOCK_BOUND if mock else bound)


def _ids(item: pytest.Item) -> set[str]:
    return {row_id for mark in item.iter_markers("ids") for row_id in mark.args}


def _bound(
    test: Callable[..., Awaitable[None]], seconds: float
) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        with trio.fail_after(seconds):
            await test(*args, **kwargs)

    return run
