"""Which offers of a request a proxy passes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trio_upgrade import Offers
from trio_upgrade._proxy.offers import check_upgrades, choose_offers


def choose(upgrades: Any, *offered: str) -> list[str]:
    request: Any = SimpleNamespace(upgrades=Offers(offered))
    return [*choose_offers(request, check_upgrades(upgrades))]


def test_only_what_is_allowed() -> None:
    """Names compare without case, versions exactly; the client's order stays."""
    assert choose(("websocket", "b/2"), "B/2", "c", "WebSocket", "b/1") == [
        "B/2",
        "WebSocket",
    ]
    assert choose((), "websocket") == []


@pytest.mark.parametrize("token", ["h2c", "H2C", "TLS/1.2", "tls", "HTTP/2.0", "h2"])
def test_go_80416_never_forwarded(token: str) -> None:
    """Also if the user allows everything (golang/go#80416, RFC 2817)."""
    assert choose(lambda _request, _protocol: True, token, "x") == ["x"]
    with pytest.raises(ValueError, match="is never passed on"):
        check_upgrades(["websocket", token])


def test_arguments() -> None:
    """A str would be taken for a list of letters."""
    with pytest.raises(TypeError, match="upgrades must be protocols"):
        check_upgrades("websocket")
    with pytest.raises(TypeError, match="upgrades must be protocols"):
        check_upgrades(5)  # type: ignore[arg-type]
