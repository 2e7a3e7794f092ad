"""The bounds: their defaults, which are documentation, and what they may be."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from trio_upgrade import Limits

NAMES = list(vars(Limits()))


def test_defaults() -> None:
    """The defaults are a promise to whoever reads the documentation."""
    assert vars(Limits()) == {
        "header_bytes": 32768,
        "header_fields": 128,
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
def test_bound_negative(name: str) -> None:
    """No bound is negative; zero is one."""
    with pytest.raises(ValueError, match="must not be negative") as caught:
        Limits(**{name: -1})

    assert str(caught.value) == f"{name} must not be negative, not -1"
    assert getattr(Limits(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"^{name} "):
        Limits(**{name: -0.5})  # type: ignore[arg-type]


def test_linger_unbounded() -> None:
    """Lingering may be without bound, said in either way."""
    assert Limits(linger=None).linger is None
    assert Limits(linger=math.inf).linger == math.inf


@pytest.mark.parametrize("name", NAMES)
def test_immutable(name: str) -> None:
    """One object serves any number of connections, so nobody can change it."""
    limits = Limits()
    with pytest.raises(FrozenInstanceError):
        setattr(limits, name, 1)
    with pytest.raises(FrozenInstanceError):
        delattr(limits, name)

    assert limits == Limits()
    assert hash(limits) == hash(Limits())


def test_keyword_only() -> None:
    """Bare numbers would tell a reader nothing."""
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]


def test_unknown() -> None:
    """A bound that is misspelt is not passed over."""
    with pytest.raises(TypeError, match="there is no limit 'lingers'"):
        Limits(lingers=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "bounds", [{"header_bytes": None}, {"body_bytes": "1"}, {"linger": "2"}]
)
def test_no_number(bounds) -> None:
    """None where it means nothing, and what is no number, are refused at once."""
    with pytest.raises(TypeError, match=f"{next(iter(bounds))} must be a number"):
        Limits(**bounds)
