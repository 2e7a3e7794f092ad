# Connecting to addresses that were judged, and to no others: no name is resolved here.
from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .addresses import Address

# Seconds after which the next address is tried beside the last one (RFC 8305 §5).
_STAGGER: Final = 0.25


async def dial(addresses: Sequence[Address], port: int) -> trio.SocketStream:
    """Connect to the first of these addresses that accepts.

    Attempts begin one after the other, each when the one before has failed or has
    lasted a quarter of a second (RFC 8305). Cancelled, it leaves nothing open.

    Args:
        addresses: At least one address, best first.
        port: The port.

    Raises:
        OSError: None of them can be reached; the failure of the first one.
    """
    return await _Race(addresses, port).run()


@final
class _Race:
    def __init__(self, addresses: Sequence[Address], port: int) -> None:
        self._addresses = addresses
        self._port = port
        self._winner: trio.SocketStream | None = None
        self._failures: list[OSError] = []

    async def run(self) -> trio.SocketStream:
        try:
            async with trio.open_nursery() as nursery:
                for address in self._addresses:
                    failed = trio.Event()
                    nursery.start_soon(
                        self._attempt,
                        address,
                        failed,
                        nursery.cancel_scope,
                        name="trio_upgrade dial",
                    )
                    with trio.move_on_after(_STAGGER):
                        await failed.wait()
        except BaseException:
            if self._winner is not None:
                await trio.aclose_forcefully(self._winner)
            raise
        if self._winner is None:
            raise self._failures[0]
        return self._winner

    async def _attempt(
        self, address: Address, failed: trio.Event, scope: trio.CancelScope
    ) -> None:
        try:
            # Trio does not resolve an address.
            stream = await trio.open_tcp_stream(str(address), self._port)
        except OSError as exc:
            self._failures.append(exc)
            failed.set()
            return
        if self._winner is None:
            self._winner = stream
            scope.cancel(reason="another address has accepted")
        else:
            # Two have connected in the same tick.
            await trio.aclose_forcefully(stream)
