# The kinds of stream over which each wire test runs.
from __future__ import annotations

import pytest

from ..tls import make_tls_contexts
from .wires import KINDS, Contexts, Dialling, Serving


@pytest.fixture(scope="session")
def tls_contexts() -> Contexts:
    return make_tls_contexts()


@pytest.fixture(params=KINDS)
def serving(request: pytest.FixtureRequest, tls_contexts: Contexts) -> Serving:
    """A server to which a test sends bytes."""
    return Serving(request.param, tls_contexts)


@pytest.fixture(params=KINDS)
def dialling(request: pytest.FixtureRequest, tls_contexts: Contexts) -> Dialling:
    """A client, and a server that sends the bytes of a test."""
    return Dialling(request.param, tls_contexts)
