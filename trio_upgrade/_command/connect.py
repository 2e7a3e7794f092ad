# trio-upgrade connect: standard input and output on an upgraded stream.
from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .dialling import Dialling
from .errors import SUCCESS
from .meter import Meter
from .session import run_session

if TYPE_CHECKING:
    from argparse import Namespace


def run(arguments: Namespace) -> int:
    """Run the subcommand, and return its exit status."""
    trio.run(connect, arguments)
    return SUCCESS


async def connect(arguments: Namespace) -> None:
    """Open an upgrade, and copy until the server has ended.

    Raises:
        CommandFailed: It could not be opened, or broke.
    """
    connection = await Dialling.from_arguments(arguments).open_upgrade(
        arguments.url,
        arguments.protocol,
        method=arguments.method,
        body=arguments.body,
    )
    meter = Meter.for_terminal()
    async with connection as (_, stream, _):
        try:
            await run_session(stream, keep_open=arguments.keep_open, meter=meter)
        finally:
            meter.finish()
