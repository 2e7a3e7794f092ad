# What the peer of an upgraded stream sees of its end: the rows of docs/topics/ends.md,
# which test_ends.py compares with what happens, for every owner and every kind of stream.
from __future__ import annotations

from typing import NamedTuple

KINDS = ("TCP", "Unix", "TLS 1.2", "TLS 1.3", "memory")
# An end of stream, and a reset: TCP has both, TLS marks its end by itself.
FIN = ("FIN", "FIN", "close_notify, FIN", "close_notify, FIN", "end")
RST = ("RST", "FIN", "RST", "RST", "end")
CUT = ("FIN", "FIN", "FIN", "FIN", "end")
NOTHING = ("nothing",) * 5


class Ending(NamedTuple):
    """A row: what ended the block or the handler, and what the peer sees by kind."""

    text: str
    seen: tuple[str, ...]
    server_only: bool = False


ENDINGS = {
    "return": Ending("it returned", FIN),
    "return cancelled": Ending("it returned in a scope that was cancelled", FIN),
    "return cut": Ending(
        "it returned, after a `send_all()` that was cancelled when a part was sent",
        ("RST", "FIN", "RST", "RST", "-"),
    ),
    "exception": Ending("an exception", RST),
    "group": Ending("an exception in a group with `Cancelled`[^group]", RST),
    "cancelled": Ending(
        "`Cancelled`: the server's task or the client's scope was cancelled", RST
    ),
    "grace": Ending("`Cancelled`: the grace of a drain is over", RST, server_only=True),
    "eof exception": Ending("an exception, after `send_eof()` had returned", FIN),
    "eof cancelled": Ending("`Cancelled`, after `send_eof()` had returned", FIN),
    "piped cancelled": Ending(
        "`Cancelled`, after `pipe` or `relay` had passed an end on to it (over TLS with "
        "`tls_ends=True`)",
        FIN,
    ),
    "peer": Ending(
        "`BrokenResourceError`: the peer had reset the stream",
        ("nothing", "-", "nothing", "nothing", "-"),
    ),
    "reset": Ending("it had called `reset()`", RST),
    "forcefully": Ending("it had called `trio.aclose_forcefully(stream)`", CUT),
    "detach": Ending("it had called `detach()`; the transport is open", NOTHING),
}
