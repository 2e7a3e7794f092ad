"""Send one message to 5,000 members of a room, and measure when the last one has it.

    python -m benchmarks.room [--members NUMBER] [--rounds NUMBER]

Once with raw upgraded streams and once with WebSockets, alone and beside members that do
not read. The server is another process, on the loopback interface; the time is from the
author's send to the last member's receive, and includes that of the reader, one process
of Python for all members. The exit status is 1 if a median is over 250 ms, with or
without slow readers, or a raw member with its connection takes more than 7 KB. Needs
Linux's /proc.
"""

from __future__ import annotations

import argparse
import selectors
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.compare import load
from benchmarks.compare.compare import allow_files
from benchmarks.compare.programs import Cores, Program, pinned

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

SERVER = (sys.executable, str(Path(__file__).with_name("server.py")), "{port}")
MOST_MS, MOST_KB = 250, 7
MESSAGE = b"m" * 64
SLOW = 20


def offer(path: str, offered: bytes = load.ECHO) -> bytes:
    """Return an offer to switch at this path."""
    return offered.replace(b" / ", f" {path} ".encode(), 1)


class Members:
    """The connections of all members, and that of an author."""

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._stack = stack
        self._port = port
        self._author = stack.enter_context(load.switch(port, offer("/author")))
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._count = 0

    def join(self, number: int, offered: bytes) -> None:
        """Let so many join."""
        for _ in range(number):
            sock = self._stack.enter_context(load.switch(self._port, offered))
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        self._count += number

    def measure(self) -> float:
        """Send a message, and return the milliseconds until the last member has it."""
        waiting = self._count
        began = time.perf_counter()
        self._author.sendall(MESSAGE)
        while waiting:
            ready = self._selector.select(load.PATIENCE)
            if not ready:
                raise load.ServerError(f"{waiting} members got nothing")
            for key, _ in ready:
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                if not load.receive(sock).endswith(MESSAGE):
                    raise load.ServerError("a message came in parts")
                waiting -= 1
        return (time.perf_counter() - began) * 1000


def measure(kind: str, offered: bytes, number: int, rounds: int) -> bool:
    """Measure one kind of members; return whether the bounds are kept."""
    cores = Cores.find()
    with ExitStack() as stack, pinned(cores.load):
        program = stack.enter_context(Program(SERVER, cores.server))
        members = Members(stack, program.port)
        # The first ones make everything that is made once and kept.
        first = min(50, number // 2)
        members.join(first, offered)
        members.measure()
        time.sleep(0.3)
        before = program.memory()
        members.join(number - first, offered)
        time.sleep(0.3)
        after = program.memory()
        alone = [members.measure() for _ in range(rounds)]
        for _ in range(SLOW):
            sock = stack.enter_context(load.switch(program.port, offer("/slow")))
            sock.sendall(b"now")
        beside = [members.measure() for _ in range(rounds)]
    if before is None or after is None:
        raise load.ServerError("its memory cannot be measured here")
    kb = (after - before) / 1000 / (number - first)
    middle, slow = statistics.median(alone), statistics.median(beside)
    print(
        f"{kind:12}{number:>8,}{kb:>10.1f}"
        f"{middle:>9.0f}{max(alone):>9.0f}{slow:>12.0f}{max(beside):>9.0f}",
        flush=True,
    )
    small = kb <= MOST_KB or offered != load.ECHO
    return small and max(middle, slow) <= MOST_MS


def main(words: Sequence[str] | None = None) -> int:
    """Measure both kinds; return 1 if a bound is broken."""
    parser = argparse.ArgumentParser(prog="benchmarks.room")
    parser.add_argument("--members", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args(words)
    if allow_files(options.members + 200) < options.members + 200:
        parser.error("this process may not have so many descriptors")
    print(
        f"{'':12}{'members':>8}{'KB each':>10}{'ms':>9}{'worst':>9}"
        f"{f'beside {SLOW}':>12}{'worst':>9}"
    )
    kinds = (("raw", load.ECHO), ("WebSocket", load.WEBSOCKET))
    kept = [
        measure(kind, offered, options.members, options.rounds)
        for kind, offered in kinds
    ]
    return 0 if all(kept) else 1
