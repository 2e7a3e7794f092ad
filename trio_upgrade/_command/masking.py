# What may be shown of requests, answers and URLs.  Output is copied into bug reports and
# kept in logs, so no secret is in it: no userinfo, no query, no field that authenticates.
from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .. import ResponseHead

MASK = "***"
# By a part of the name: there is no end of X-Api-Key, X-Auth-Token and the like.
_has_secret_name = re.compile(
    r"auth|bearer|cookie|credential|key|pass|secret|session|signature|token",
    re.IGNORECASE,
).search
# Credentials in a field of another name (RFC 9110 §11.4).
_mask_schemes = partial(
    re.compile(r"\b(basic|bearer|digest|negotiate) +\S.*", re.IGNORECASE).sub,
    r"\1 " + MASK,
)
# A shorter secret is in too many other words.
_LEAST_CHARACTERS = 4
# The questions of a server, which say how to authenticate (RFC 9110 §11.6.1, §11.7.1).
_CHALLENGES = frozenset({"www-authenticate", "proxy-authenticate"})
# Browsers can set no other field, so some servers take a token in this one.
_SUBPROTOCOLS = "sec-websocket-protocol"
_WITH_URLS = frozenset({"location", "content-location", "referer", "refresh", "link"})


def mask_userinfo(text: str) -> str:
    """Return a text with the userinfo of each URL in it masked.

    More than that is masked if a URL is malformed: its password may have a slash.
    """
    return re.sub(r"//\S*@", f"//{MASK}@", text)


def mask_target(text: str) -> str:
    """Return a URL or the target of a request without userinfo and query."""
    path, query, _ = mask_userinfo(text).partition("?")
    return path + (f"?{MASK}" if query else "")


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return a text without secrets: texts that came from elsewhere.

    Of a URL the path is hidden, which may be the secret part; userinfo and query never
    are shown. Its host is shown, since an error would say nothing without it.
    """
    for secret in secrets:
        scheme, _, rest = secret.partition("://")
        hidden = rest.partition("/")[2].partition("?")[0] if rest else scheme
        if len(hidden) >= _LEAST_CHARACTERS:
            text = text.replace(hidden, MASK)
    return text


def escape(text: str) -> str:
    """Return text without control characters, which could act on a terminal."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else ascii(c)[1:-1] for c in text])


def format_response(head: ResponseHead) -> list[str]:
    """Return the lines of a response's header section."""
    line = f"HTTP/{head.http_version} {head.status} {head.reason}"
    fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in head.headers.raw]
    return format_response_fields(line, fields)


def format_response_fields(line: str, fields: Iterable[tuple[str, str]]) -> list[str]:
    """Return the lines of a status line and its fields."""
    return _format("<", line, fields, ())


def format_request(sent: bytes, secret: Collection[str]) -> list[str]:
    """Return the lines of a request's header section.

    Args:
        sent: The request, as it is sent.
        secret: Further names of fields that are masked, in lower case.
    """
    text = sent.partition(b"\r\n\r\n")[0].decode("latin-1")
    line, *lines = text.split("\r\n")
    method, target, version = line.split(" ")
    fields = [(name, value) for name, _, value in (one.partition(":") for one in lines)]
    return _format(">", f"{method} {mask_target(target)} {version}", fields, secret)


def _format(
    marker: str,
    line: str,
    fields: Iterable[tuple[str, str]],
    secret: Collection[str],
) -> list[str]:
    lines = [f"{marker} {escape(line)}"]
    for name, value in fields:
        shown = _mask_value(name.lower(), value.strip(), secret)
        lines.append(f"{marker} {escape(name)}: {escape(shown)}")
    return [*lines, marker]


def _mask_value(name: str, value: str, secret: Collection[str]) -> str:
    if name in _CHALLENGES:
        return value
    if name in secret or _has_secret_name(name):
        return MASK
    if name == _SUBPROTOCOLS and _has_secret_name(value):
        return MASK
    if name in _WITH_URLS:
        value = re.sub(r"\?[^\s>]+", f"?{MASK}", value)
    return _mask_schemes(mask_userinfo(value))
