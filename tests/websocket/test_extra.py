"""What an import of trio_upgrade.websocket says without the websockets library."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest


@pytest.fixture
def forget(monkeypatch):
    """Forget the modules of trio_upgrade that need the library."""
    import trio_upgrade

    for name in [*sys.modules]:
        if name.startswith(("trio_upgrade._websocket", "trio_upgrade.websocket")):
            monkeypatch.delitem(sys.modules, name)
    # The attributes, too: the tests that follow have the modules of before.
    for name in "websocket", "_websocket":
        if hasattr(trio_upgrade, name):
            monkeypatch.setattr(trio_upgrade, name, getattr(trio_upgrade, name))


@pytest.mark.usefixtures("forget")
def test_import_without_the_library(monkeypatch) -> None:
    """The error names the extra to install, and the module that is missing."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "websockets":
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        import_module("trio_upgrade.websocket")

    assert "the extra: trio-upgrade[websocket]" in str(caught.value)
    assert caught.value.name is not None
    assert caught.value.name.startswith("websockets")


@pytest.mark.usefixtures("forget")
def test_import_that_fails_otherwise(monkeypatch) -> None:
    """Another module that is missing is not taken for the extra."""
    monkeypatch.setitem(sys.modules, "trio_upgrade._websocket.opening", None)
    with pytest.raises(ModuleNotFoundError, match="opening") as caught:
        import_module("trio_upgrade.websocket")

    assert "extra" not in str(caught.value)
