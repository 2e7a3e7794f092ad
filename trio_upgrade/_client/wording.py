# How errors of the client are worded: who failed, at which stage, and what was received.
# Every message that shows a URL, or text from the wire, gets it from here, so that none
# has a secret (userinfo, query) or a control character, which could act on a terminal.
from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .urls import Endpoint

# A target, an authority or a field that is longer is cut: a message is one line.
_LONGEST_PART = 200
_MASK = "***"


def escape(text: str, longest: int = _LONGEST_PART) -> str:
    """Return text in one line without control characters, cut after ``longest``.

    Characters that are not printable become escapes of Python, as in ``repr()``: the
    controls U+0080 to U+009F too, and those that change the direction of text.
    """
    shown = text[:longest]
    if not shown.isprintable():
        shown = "".join(
            [
                character if character.isprintable() else ascii(character)[1:-1]
                for character in shown
            ]
        )
    return shown if len(text) <= longest else f"{shown}..."


def mask(text: str) -> str:
    """Return a part of a URL without its secrets, escaped: no userinfo, no query."""
    rest, query, _ = re.sub(r"(?s)\A([A-Za-z+.-]+://)?.*@", r"\1***@", text).partition(
        "?"
    )
    return escape(rest) + (f"?{_MASK}" if query else "")


def name_origin(endpoint: Endpoint) -> str:
    """Return scheme, host and port of a URL, or the path of its Unix socket."""
    if endpoint.path is not None:
        return f"Unix socket {escape(endpoint.path)} ({endpoint.scheme}+unix)"
    userinfo = "" if endpoint.credentials is None else f"{_MASK}@"
    return f"{endpoint.scheme}://{userinfo}{endpoint.host_field.decode('ascii')}"


def name_url(endpoint: Endpoint, target: str | None = None) -> str:
    """Return the URL, with another target if one is given."""
    origin, target = name_origin(endpoint), mask(target or endpoint.target)
    if endpoint.path is None and target.startswith("/"):
        return origin + target
    return origin if target == "/" else f"{origin}, target {target}"


def name_proxy(endpoint: Endpoint) -> str:
    """Return what a proxy is called in a message."""
    return f"proxy {name_origin(endpoint)}"
