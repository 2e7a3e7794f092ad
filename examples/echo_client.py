# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Upgrade a connection, send standard input over it, and print the bytes that come back.

    echo hello | python examples/echo_client.py [URL] [PROTOCOL ...]

URL is http://127.0.0.1:1337/ and PROTOCOL is ``echo`` unless given. The end of the input
is sent as a half-close; the program ends when the server has ended the stream too.
"""

from __future__ import annotations

import os
import sys

import trio

from trio_upgrade import OpenError, UpgradedStream, UpgradeRefused, open_upgrade


async def send_input(stream: UpgradedStream) -> None:
    # If the server ends first, the thread is abandoned: a read of a keyboard cannot be
    # cancelled.
    while chunk := await trio.to_thread.run_sync(
        os.read, sys.stdin.fileno(), 65536, abandon_on_cancel=True
    ):
        await stream.send_all(chunk)
    await stream.send_eof()


async def main(url: str, *protocols: str) -> None:
    try:
        upgraded = await open_upgrade(url, *protocols)
    except UpgradeRefused as exc:
        sys.exit(f"{exc}\n{exc.response.body.decode(errors='replace')}")
    except (OSError, OpenError) as exc:
        sys.exit(str(exc))
    async with upgraded as (response, stream, _head):
        print(f"got upgraded! {response.headers['upgrade']}", file=sys.stderr)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_input, stream)
            async for chunk in stream:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    url, *protocols = sys.argv[1:] or ["http://127.0.0.1:1337/"]
    trio.run(main, url, *(protocols or ["echo"]))
