# How errors of the client are worded: who failed, at which stage, and what was received.
# Every message that shows a URL, or text from the wire, gets it from here, so that none
# has a secret (userinfo, query) or a control character, which could act on a terminal.
from __future__ import annotations

import re
from codecs import getincrementaldecoder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._errors import OpenError
    from .._http.headers import Headers
    from .._http.messages import ResponseHead
    from .urls import Endpoint

# A target, an authority or a field that is longer is cut: a message is one line.
_LONGEST_PART = 200
_MASK = "***"
# Scheme, authority and the rest of a URL, or of a part of one.  A path has only the last.
_PARTS = r"(?s)\A([A-Za-z][A-Za-z0-9+.\-]*://)?([^/?#]*)(.*)"
# How much of a refusal's body is searched for words, and how many characters are shown.
_SEARCHED = 2048
_LONGEST_WORDS = 120
# RFC 9110 §11.6.1 and §11.7.1: the fields that say how to authenticate.
_CHALLENGES = {401: "www-authenticate", 407: "proxy-authenticate"}

# The stages of a request, as messages name them.
BEFORE_REQUEST = "before the request"
SENDING = "sending the request"
ANSWER = "reading the answer"
SOCKS = "in the SOCKS exchange"


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
    scheme, authority, rest = re.findall(_PARTS, text)[0]
    if authority and "@" in rest:
        # A "/" or "?" of a malformed password may have ended the authority too early.
        return escape(scheme) + _MASK
    path, query, _ = rest.partition("?")
    authority = re.sub(r"(?s).*@", f"{_MASK}@", authority)
    return escape(scheme + authority + path) + (f"?{_MASK}" if query else "")


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


def name_exchange(endpoint: Endpoint, method: str, target: str) -> str:
    """Return the peer of a request, and its target; a CONNECT is for a proxy."""
    named = name_url(endpoint, target)
    return f"proxy {named}" if method == "CONNECT" else named


def name_failure(exc: OpenError, named: str, stage: str) -> None:
    """Begin the message of an error with its peer and the stage.

    Call this once for each error: where a request was made, or a proxy was asked.
    """
    exc.args = (f"{named}, {stage}: {exc}",)


def quote_refusal(head: ResponseHead, body: bytes) -> str:
    """Return status, reason, challenge and the first words of a refusal's body."""
    text = f"{head.status} {escape(head.reason)}".rstrip()
    challenge = head.headers.get(_CHALLENGES.get(head.status, ""))
    if challenge:
        text += f" (it wants {escape(challenge)})"
    words = _find_words(head.headers, body[:_SEARCHED])
    return f'{text}: "{escape(words, _LONGEST_WORDS)}"' if words else text


def _find_words(headers: Headers, beginning: bytes) -> str:
    # Return the text of a body, empty if the body is not known to be text.
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    textual = not kind or kind.startswith("text/") or kind.endswith(("json", "xml"))
    if not textual or "content-encoding" in headers:
        return ""
    try:
        # Incremental: the beginning may end within a character.
        text = getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        text = beginning.decode("latin-1")
        if not kind:
            return ""
    if "html" in kind:
        text = re.sub(r"<[^>]*>", " ", text)
    words = " ".join(text.split())
    return words if kind or words.isprintable() else ""
