# Records of TLS 1.3 made by hand, for what the ssl module cannot send: key updates.  The
# keys come from the file that is written for Wireshark.
from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

_APPLICATION_DATA, _HANDSHAKE, _ALERT = 23, 22, 21


class RecordSender:
    """Encrypts records in place of one side of TLS, which must not send any more.

    Args:
        log: The key log of that side's context.
        label: ``"CLIENT_TRAFFIC_SECRET_0"`` or ``"SERVER_TRAFFIC_SECRET_0"``.
        sent: The number of records that the side has sent after its handshake.
    """

    def __init__(self, log: Path, label: str, sent: int = 0) -> None:
        (line,) = (
            line for line in log.read_text().splitlines() if line.startswith(label)
        )
        self._secret = bytes.fromhex(line.split()[2])
        self._number = sent

    def data(self, data: bytes) -> bytes:
        """Return a record of application data."""
        return self._record(_APPLICATION_DATA, data)

    def close_notify(self) -> bytes:
        """Return a record that ends the direction."""
        return self._record(_ALERT, b"\x01\x00")

    def key_update(self, *, answer: bool) -> bytes:
        """Return a key update, which asks for one in turn or not (RFC 8446 §4.6.3)."""
        record = self._record(_HANDSHAKE, bytes((24, 0, 0, 1, answer)))
        self._secret = self._expand(b"traffic upd", 48)
        self._number = 0
        return record

    def _record(self, kind: int, content: bytes) -> bytes:
        # RFC 8446 §5.2 and §5.3.
        nonce = int.from_bytes(self._expand(b"iv", 12)) ^ self._number
        self._number += 1
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        cipher = AESGCM(self._expand(b"key", 32))
        return header + cipher.encrypt(
            nonce.to_bytes(12), content + bytes([kind]), header
        )

    def _expand(self, label: bytes, size: int) -> bytes:
        # HKDF-Expand-Label with no context (RFC 8446 §7.1); one block is enough.
        label = b"tls13 " + label
        info = size.to_bytes(2) + bytes([len(label)]) + label + b"\x00\x01"
        return hmac.digest(self._secret, info, hashlib.sha384)[:size]


def log_keys(context: ssl.SSLContext, path: Path) -> None:
    """Write the keys of a context's connections, which must be TLS_AES_256_GCM_SHA384."""
    context.keylog_filename = str(path)
