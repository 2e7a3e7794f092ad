# The files for TLS.  OpenSSL's own messages name neither the file nor the mistake.
from __future__ import annotations

import ssl
from functools import partial
from typing import NoReturn

from .errors import UsageFailed


def make_client_context(authorities: str | None) -> ssl.SSLContext:
    """Return settings for clients that trust the authorities of a file.

    Args:
        authorities: The file, in PEM; None trusts those of the system.

    Raises:
        UsageFailed: The file cannot be used.
    """
    if authorities is not None:
        _check_readable(authorities)
    try:
        return ssl.create_default_context(cafile=authorities)
    except ssl.SSLError as exc:
        raise UsageFailed(f"{authorities} has no certificate in PEM") from exc


def load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Load a certificate and its key, from files in PEM.

    A key with a passphrase is refused: OpenSSL would ask for it in each process, and
    where there is no terminal it would read standard input.

    Raises:
        UsageFailed: The files cannot be used.
    """
    for path in (certificate, key):
        _check_readable(path)
    try:
        context.load_cert_chain(certificate, key, partial(_refuse_passphrase, key))
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            raise UsageFailed(f"{key} is not the key of {certificate}") from exc
        raise UsageFailed(
            f"{certificate} and {key} are not a certificate and its key in PEM"
        ) from exc


def _check_readable(path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as exc:
        raise UsageFailed(f"cannot read {path}: {exc.strerror}") from exc


def _refuse_passphrase(key: str) -> NoReturn:
    raise UsageFailed(f"{key} has a passphrase: give a key without one")
