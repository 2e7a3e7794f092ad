"""Immutable objects: how they are compared, shown and copied."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest

from trio_upgrade import Limits, Proxy, RelayResult

RESULT = RelayResult(1, 2, "left", "eof")


@pytest.mark.parametrize("frozen", [Limits(), RESULT, Proxy("http://proxy")])
def test_immutable(frozen: object) -> None:
    """No attribute can be added, replaced or deleted."""
    for name in (*vars(frozen), "new"):
        with pytest.raises(FrozenInstanceError, match=f"assign to field '{name}'"):
            setattr(frozen, name, 1)
        with pytest.raises(FrozenInstanceError, match=f"delete field '{name}'"):
            delattr(frozen, name)


def test_equality() -> None:
    """Records of one class are equal, and hash equal, if their attributes are equal."""
    assert {RESULT: 1}[RelayResult(1, 2, "left", "eof")] == 1
    for other in (RelayResult(1, 2, "left", "reset"), Limits(), (1, 2, "left", "eof")):
        assert other != RESULT


def test_identity() -> None:
    """A proxy equals only itself, even if another one has the same fields."""
    proxy = Proxy("http://proxy", {"A": "b"})

    assert {proxy: 1}[proxy] == 1
    assert proxy != Proxy("http://proxy", {"A": "b"})


def test_repr() -> None:
    """The repr of a record is an expression that makes an equal one."""
    shown = (
        "RelayResult(left_to_right=1, right_to_left=2, ended_by='left', cause='eof')"
    )

    assert repr(RESULT) == shown
    assert repr(Limits()) == "Limits()"
    assert repr(Limits(linger=3, upgraded=2)) == "Limits(upgraded=2, linger=3)"
    assert eval(repr(Limits(linger=3))) == Limits(linger=3)


@pytest.mark.parametrize("record", [Limits(linger=3), RESULT])
def test_copies(record: object) -> None:
    """A copied or pickled record equals the original."""
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record
        assert hash(other) == hash(record)


def test_pattern() -> None:
    """A RelayResult can be matched by position."""
    match RESULT:
        case RelayResult(1, 2, side, cause):
            assert (side, cause) == ("left", "eof")
