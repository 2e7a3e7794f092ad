"""What a client is told when the upstream fails."""

from __future__ import annotations

import pytest
import trio

from trio_upgrade import BadResponse, IllegalSwitch, PeerGone, TLSFailed
from trio_upgrade._proxy.failures import ANSWER_TIMEOUT, LOOP, name_failure


@pytest.mark.parametrize(
    "error",
    [
        OSError(111, "Connection refused: 10.0.0.7:8080"),
        TLSFailed("CERTIFICATE_VERIFY_FAILED for db.internal"),
        IllegalSwitch("it switches to 'secret'"),
        BadResponse("secret"),
        PeerGone("10.0.0.7"),
        trio.BrokenResourceError("10.0.0.7"),
    ],
)
def test_no_address_is_told(error: Exception) -> None:
    """A 502 says what failed and nothing about the network behind the proxy."""
    failure = name_failure(error)

    assert failure.status == 502
    assert "10.0.0.7" not in failure.text
    assert "internal" not in failure.text
    assert "secret" not in failure.text


def test_statuses() -> None:
    """Time is 504 (RFC 9110 §15.6.5), a loop 508 (RFC 5842 §7.2)."""
    assert ANSWER_TIMEOUT.respond().status == 504
    assert LOOP.respond().status == 508
