# /// script
# requires-python = ">=3.11"
# dependencies = ["trio-upgrade"]
# ///
"""Follow redirects and a 401 to an upgrade, with credentials only for their own origin.

    python examples/follow.py http://user:password@127.0.0.1:1337/ [PROTOCOL ...]

For ``open_upgrade`` every response except the switch is a refusal, because it depends on
trust which redirects may be followed. This program has these rules:

- it follows at most five redirects, to http, https, ws and wss, and never from TLS to
  clear text;
- it sends credentials only after a 401 that asks for Basic, and only to the origin
  (scheme, host and port) that they were given for; credentials in a Location are dropped.
"""

from __future__ import annotations

import sys
from base64 import b64encode
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import trio

from trio_upgrade import OpenError, UpgradedConnection, UpgradeRefused, open_upgrade

REDIRECTS = {301, 302, 303, 307, 308}
MOST_REDIRECTS = 5
PORTS = {"http": 80, "https": 443}
SCHEMES = {"http": "http", "ws": "http", "https": "https", "wss": "https"}


class Origin(NamedTuple):
    """The servers that credentials are for (RFC 6454 §4)."""

    scheme: str
    host: str
    port: int


def find_origin(parts: SplitResult) -> Origin:
    scheme = SCHEMES[parts.scheme]
    return Origin(scheme, parts.hostname or "", parts.port or PORTS[scheme])


def drop_userinfo(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def open_following(url: str, *protocols: str) -> UpgradedConnection:
    parts = urlsplit(url)
    owner, url = find_origin(parts), drop_userinfo(parts)
    secret = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    basic = {"Authorization": f"Basic {b64encode(secret.encode()).decode()}"}
    headers: dict[str, str] = {}
    redirects = 0
    while True:
        try:
            return await open_upgrade(url, *protocols, headers=headers)
        except UpgradeRefused as exc:
            response = exc.response
            origin = find_origin(urlsplit(url))
            challenge = response.headers.get("www-authenticate", "").lower()
            if response.status == HTTPStatus.UNAUTHORIZED:
                may_answer = parts.username is not None and origin == owner
                if headers or not may_answer or not challenge.startswith("basic"):
                    raise
                headers = basic
                continue
            location = response.headers.get("location")
            if response.status not in REDIRECTS or location is None:
                raise
            redirects += 1
            target = urlsplit(urljoin(url, location))
            if redirects > MOST_REDIRECTS or target.scheme not in SCHEMES:
                raise
            if (origin.scheme, SCHEMES[target.scheme]) == ("https", "http"):
                raise
            url = drop_userinfo(target)
            if find_origin(target) != owner:
                headers = {}
            print(f"{response.status}: redirected to {url}", file=sys.stderr)


async def main(url: str, *protocols: str) -> None:
    try:
        upgraded = await open_following(url, *protocols or ["echo"])
    except (OSError, OpenError, ValueError) as exc:
        sys.exit(str(exc))
    async with upgraded as (_response, stream, _head):
        await stream.send_all(b"hello")
        print(bytes(await stream.receive_some()).decode())


if __name__ == "__main__":
    url, *protocols = sys.argv[1:]
    trio.run(main, url, *protocols)
