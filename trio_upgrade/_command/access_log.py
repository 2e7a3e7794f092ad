# The access log: an observer that writes a line for each answer and each switch.
from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast, final

from .. import RequestRecord, forwarded
from .masking import mask_target

if TYPE_CHECKING:
    from .. import SwitchRecord, TrustedPeers


def name_client(peer: object) -> str:
    """Return the host of a client's address, and ``-`` if it has none."""
    if not isinstance(peer, tuple) or not peer:
        return "-"
    return str(cast("tuple[object, ...]", peer)[0])


@final
class AccessLog:
    """An observer that writes Common Log Format to standard error.

    Targets have neither userinfo nor query, since both carry secrets.

    Args:
        trusted: The proxies that may say who the client is.
    """

    def __init__(self, trusted: TrustedPeers) -> None:
        self._trusted = trusted

    def request(self, record: RequestRecord) -> None:
        """Write the line of an answer."""
        self._write(record)

    def switched(self, record: SwitchRecord) -> None:
        """Write the line of a switch."""
        self._write(record)

    def _write(self, record: RequestRecord | SwitchRecord) -> None:
        request, line = record.request, "-"
        peer: object = record.peer
        if request is not None:
            # The record keeps the address of a client that is gone, a request does not.
            peer = forwarded(request, self._trusted).peer or peer
            target = mask_target(request.target)
            line = f"{request.method} {target} HTTP/{request.http_version}"
        # Nothing in a line may end it, or its quotes, or act on a terminal.
        line = line.encode("unicode_escape").decode().replace('"', '\\"')
        began = datetime.now().astimezone() - timedelta(seconds=record.seconds)
        time = began.strftime("%d/%b/%Y:%H:%M:%S %z")
        size = record.content if isinstance(record, RequestRecord) else 0
        # In one call: other processes write here, too.
        sys.stderr.write(
            f'{name_client(peer)} - - [{time}] "{line}" {record.status} {size or "-"}\n'
        )
        sys.stderr.flush()
