"""What stays as it was made, and how it is compared and shown."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError

import pytest

from trio_upgrade import Limits, Proxy, RelayResult

RELAYED = RelayResult(1, 2, "left", "eof")


@pytest.mark.parametrize("frozen", [Limits(), RELAYED, Proxy("http://proxy")])
def test_immutable(frozen: object) -> None:
    """Nothing is set, replaced or taken away."""
    for name in (*vars(frozen), "new"):
        with pytest.raises(FrozenInstanceError, match=f"assign to field '{name}'"):
            setattr(frozen, name, 1)
        with pytest.raises(FrozenInstanceError, match=f"delete field '{name}'"):
            delattr(frozen, name)


def test_equality() -> None:
    """Records of one kind with equal attributes are equal, and stand for each other."""
    assert {RELAYED: 1}[RelayResult(1, 2, "left", "eof")] == 1
    for other in (RelayResult(1, 2, "left", "reset"), Limits(), (1, 2, "left", "eof")):
        assert other != RELAYED


def test_identity() -> None:
    """A proxy equals itself alone, whatever its fields are."""
    proxy = Proxy("http://proxy", {"A": "b"})

    assert {proxy: 1}[proxy] == 1
    assert proxy != Proxy("http://proxy", {"A": "b"})


def test_repr() -> None:
    """A record shows what would make it anew."""
    shown = (
        "RelayResult(left_to_right=1, right_to_left=2, ended_by='left', cause='eof')"
    )

    assert repr(RELAYED) == shown
    assert eval(repr(Limits(linger=3))) == Limits(linger=3)


@pytest.mark.parametrize("record", [Limits(linger=3), RELAYED])
def test_copies(record: object) -> None:
    """Copied and pickled, it is the same."""
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record
        assert hash(other) == hash(record)


def test_pattern() -> None:
    """The outcome of a relay is matched by place, too."""
    match RELAYED:
        case RelayResult(1, 2, side, cause):
            assert (side, cause) == ("left", "eof")
