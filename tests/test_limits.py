"""The limits: their defaults, and the values that they accept."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from trio_upgrade import Limits

NAMES = list(vars(Limits()))


def test_defaults() -> None:
    """The defaults are documented, so a change of one is a decision."""
    assert vars(Limits()) == {
        "header_bytes": 32768,
        "header_fields": 1000,
        "body_bytes": 1048576,
        "drain_body": 65536,
        "refusal_body": 65536,
        "informational": 16,
        "read_ahead": 65536,
        "connections": 10000,
        "upgraded": None,
        "requests_per_connection": None,
        "header_timeout": 10.0,
        "keep_alive_timeout": 5.0,
        "body_timeout": 30.0,
        "body_progress": 1024,
        "response_timeout": None,
        "send_timeout": 30.0,
        "continue_timeout": 1.0,
        "linger": 2.0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_negative(name: str) -> None:
    """A limit may be zero but not negative."""
    with pytest.raises(ValueError, match="must not be negative") as caught:
        Limits(**{name: -1})

    assert str(caught.value) == f"{name} must not be negative, not -1"
    assert getattr(Limits(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"^{name} "):
        Limits(**{name: -0.5})  # type: ignore[arg-type]


def test_linger_without_limit() -> None:
    """None and infinity both disable the limit on lingering."""
    assert Limits(linger=None).linger is None
    assert Limits(linger=math.inf).linger == math.inf


@pytest.mark.parametrize("name", NAMES)
def test_immutable(name: str) -> None:
    """One object is shared by many connections, so it cannot be changed."""
    limits = Limits()
    with pytest.raises(FrozenInstanceError):
        setattr(limits, name, 1)
    with pytest.raises(FrozenInstanceError):
        delattr(limits, name)

    assert limits == Limits()
    assert hash(limits) == hash(Limits())


def test_keyword_only() -> None:
    """Limits are given by name: positional numbers would say nothing to a reader."""
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]


def test_unknown() -> None:
    """A misspelt limit is refused."""
    with pytest.raises(TypeError, match="there is no limit 'lingers'"):
        Limits(lingers=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "limits", [{"header_bytes": None}, {"body_bytes": "1"}, {"linger": "2"}]
)
def test_not_a_number(limits) -> None:
    """None for a limit that cannot be disabled, and other types, are refused."""
    with pytest.raises(TypeError, match=f"{next(iter(limits))} must be a number"):
        Limits(**limits)
