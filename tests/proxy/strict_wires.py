# The wires of the strict-reading tests, for other tests to send somewhere else.  They are
# not listed a second time: each of those tests is called with an object that takes the
# bytes and checks nothing.
from __future__ import annotations

import inspect
from itertools import product
from typing import TYPE_CHECKING, Any

from ..conformance import test_strict
from ..conformance.wires import with_fields
from ..wire import UP

if TYPE_CHECKING:
    from collections.abc import Iterator


class Recorder:
    """Stands for the server of the tests: what it is sent is recorded."""

    kind = "tcp"

    def __init__(self) -> None:
        self.wires: list[bytes] = []

    async def check(self, _app: object, wire: bytes, *_rest: object) -> None:
        """Record bytes that are accepted."""
        self.wires.append(wire)

    async def check_refusal(self, wire: bytes, *_rest: object, **_more: object) -> None:
        """Record bytes that are refused."""
        self.wires.append(wire)


async def record_wires() -> list[bytes]:
    """Return the bytes of each strict-reading test, with each of its parameters."""
    recorder = Recorder()
    for name, test in vars(test_strict).items():
        if name.startswith("test_") and "serving" in inspect.signature(test).parameters:
            for arguments in _expand(test):
                await test(serving=recorder, **arguments)
    chunked = with_fields(UP, "Transfer-Encoding: chunked")
    recorder.wires += [chunked + body for body in test_strict.BAD_CHUNKS]
    return recorder.wires


def _expand(test: Any) -> Iterator[dict[str, Any]]:
    # The arguments of a test as pytest's parametrize would give them.
    choices = []
    for mark in getattr(test, "pytestmark", []):
        if mark.name == "parametrize":
            names, values = mark.args[:2]
            several = not isinstance(names, str)
            choices.append(
                [
                    dict(zip(names, value, strict=True)) if several else {names: value}
                    for value in values
                ]
            )
    for chosen in product(*choices):
        yield {key: value for choice in chosen for key, value in choice.items()}
