# Fixtures that run each wire test over every kind of stream.
from __future__ import annotations

import pytest

from ..tls import make_tls_contexts
from .wires import KINDS, Contexts, Dialling, Serving


@pytest.fixture(scope="session")
def tls_contexts() -> Contexts:
    return make_tls_contexts()


@pytest.fixture(params=KINDS)
def serving(request: pytest.FixtureRequest, tls_contexts: Contexts) -> Serving:
    """A server to send bytes to."""
    return Serving(request.param, tls_contexts)


@pytest.fixture(params=KINDS)
def dialling(request: pytest.FixtureRequest, tls_contexts: Contexts) -> Dialling:
    """A client whose server sends scripted bytes."""
    return Dialling(request.param, tls_contexts)
