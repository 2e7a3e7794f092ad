"""The exceptions: their base classes, messages and attributes."""

from __future__ import annotations

import copy
import pickle

import pytest

from trio_upgrade import (
    BadBody,
    BadResponse,
    BodyError,
    BodyTimeout,
    BodyTooLarge,
    ClientResponse,
    HalfCloseUnsupported,
    Headers,
    IllegalSwitch,
    MalformedMessage,
    NotOffered,
    OpenError,
    PeerGone,
    Refused,
    ResponseHead,
    SocksRefused,
    TrioUpgradeError,
    TunnelRefused,
    UpgradeRefused,
    UsageError,
)
from trio_upgrade._body import Body


def make_response(status: int, reason: str) -> ClientResponse:
    async def receive() -> bytes:
        raise AssertionError("the body was read")

    head = ResponseHead(status, reason, "1.1", Headers())
    return ClientResponse(head, (), Body(receive, 0, 0))


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (TrioUpgradeError, (Exception,)),
        (OpenError, (TrioUpgradeError,)),
        (Refused, (OpenError,)),
        (UpgradeRefused, (Refused,)),
        (TunnelRefused, (Refused,)),
        (IllegalSwitch, (OpenError,)),
        (BadResponse, (OpenError,)),
        (PeerGone, (OpenError,)),
        (BodyError, (TrioUpgradeError,)),
        (BadBody, (BodyError,)),
        (BodyTooLarge, (BodyError,)),
        (NotOffered, (TrioUpgradeError,)),
        (MalformedMessage, (TrioUpgradeError,)),
        (HalfCloseUnsupported, (TrioUpgradeError,)),
        (UsageError, (TrioUpgradeError, RuntimeError)),
    ],
)
def test_tree(kind: type[Exception], bases: tuple[type, ...]) -> None:
    """The base classes are part of the API, since ``except`` clauses use them."""
    assert kind.__bases__ == bases


@pytest.mark.parametrize(
    ("error", "text", "attributes"),
    [
        (
            IllegalSwitch("it is HTTP/1.0"),
            "illegal 101: it is HTTP/1.0",
            {"defect": "it is HTTP/1.0"},
        ),
        (BodyError("x"), "x", {"status": 400}),
        (BadBody("broken"), "broken", {"status": 400}),
        (
            BodyTooLarge(7),
            "the body is longer than 7 bytes",
            {"status": 413, "limit": 7},
        ),
        (NotOffered("h2c"), "the request does not offer 'h2c'", {"protocol": "h2c"}),
        (MalformedMessage("why"), "why", {"status": 400}),
        (MalformedMessage("why", 431), "why", {"status": 431}),
        (MalformedMessage("why", status=414), "why", {"status": 414}),
    ],
)
def test_attributes(error: Exception, text: str, attributes: dict[str, object]) -> None:
    """Attributes carry the facts, so that no caller has to parse a message."""
    assert str(error) == text
    assert {name: getattr(error, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [(403, "Forbidden", "refused with 403 Forbidden"), (299, "", "refused with 299")],
)
def test_refused(status: int, reason: str, text: str) -> None:
    """A refusal carries the response, from which the body can be read."""
    response = make_response(status, reason)
    error = UpgradeRefused(response)

    assert error.response is response
    assert str(error) == text


@pytest.mark.parametrize(
    "error",
    [
        SocksRefused("r", "p:1", 2),
        BodyTimeout(),
        BodyTooLarge(3),
        NotOffered("x"),
        IllegalSwitch("it has no Upgrade field"),
        PeerGone("gone", request_sent=True),
        MalformedMessage("no", status=431),
    ],
    ids=lambda error: type(error).__name__,
)
def test_copies(error: TrioUpgradeError) -> None:
    """A copied or pickled error says the same, and has the same attributes."""
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
