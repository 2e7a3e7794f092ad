# The grammar of the two list fields that a switch needs: Connection, a list of option
# tokens (RFC 9110 §7.6.1), and Upgrade, a list of name[/version] (§7.8).  This module
# knows nothing about messages.  Lists are split by str methods, not by one large regular
# expression, so that the time is linear for any input (CVE-2021-32640 was such a regex).
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import cast, final, overload

from .._util import public

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105  RFC 9110 §5.6.2, not a secret
_is_token = re.compile(_TOKEN).fullmatch
is_raw_token = re.compile(_TOKEN.encode()).fullmatch
_is_protocol = re.compile(f"{_TOKEN}(?:/{_TOKEN})?").fullmatch


def split_list(values: Iterable[bytes]) -> list[str]:
    """Return the elements of a list field, whose lines form one list.

    Blanks around an element and empty elements are dropped (RFC 9110 §5.6.1).
    """
    elements: list[str] = []
    for value in values:
        for element in value.decode("latin-1").split(","):
            stripped = element.strip(" \t")
            if stripped:
                elements.append(stripped)
    return elements


def connection_options(values: Iterable[bytes]) -> frozenset[str]:
    """Return the options of all Connection lines, in lower case (RFC 9110 §7.6.1)."""
    # Whole lines, because lower() is faster on bytes than on str.
    return frozenset(split_list(map(bytes.lower, values)))


def fold_protocol(protocol: str) -> str:
    """Return a protocol in the form to compare: name in lower case, version unchanged."""
    name, slash, version = protocol.partition("/")
    return name.lower() + slash + version


@public
@final
class Offers(Sequence[str]):
    """The protocols that a request offers, in the client's order and spelling.

    ``in`` and :meth:`index` compare as RFC 9110 §7.8 does: names without case,
    versions exactly. An element is ``name`` or ``name/version``.
    """

    __slots__ = ("_offers",)

    def __init__(self, offers: Iterable[str] = ()) -> None:
        self._offers = tuple(offers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self._offers[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self._offers)

    def __len__(self) -> int:
        return len(self._offers)

    def __contains__(self, protocol: object) -> bool:
        # Most requests offer nothing; in the client's own spelling nothing is to fold.
        return bool(self._offers) and (
            protocol in self._offers
            or (isinstance(protocol, str) and fold_protocol(protocol) in self._fold())
        )

    def index(self, protocol: str, start: int = 0, stop: int | None = None) -> int:
        """Return the index of a protocol in the client's order of preference.

        Raises:
            ValueError: It was not offered.
        """
        return self._fold().index(
            fold_protocol(protocol), start, len(self) if stop is None else stop
        )

    def count(self, protocol: str) -> int:
        """Return how often a protocol was offered."""
        return self._fold().count(fold_protocol(protocol))

    def _fold(self) -> tuple[str, ...]:
        return tuple([fold_protocol(offer) for offer in self._offers])

    def __repr__(self) -> str:
        return f"Offers({list(self._offers)!r})"


# Shared by all requests that offer nothing; it never changes.
NO_OFFERS = Offers()


def parse_protocols(values: Iterable[bytes]) -> Offers:
    """Return the protocols of all Upgrade lines; malformed elements are left out."""
    return Offers(filter(_is_protocol, split_list(values)))


def is_protocol_list(values: Iterable[bytes]) -> bool:
    """Return whether every element of the Upgrade lines is a well-formed protocol."""
    return all(map(_is_protocol, split_list(values)))


def check_token(token: str) -> str:
    """Check a token and return it.

    Raises:
        TypeError: It is not a str.
        ValueError: It is not a token (RFC 9110 §5.6.2). A token has no CR or LF, so
            nothing can be injected through it.
    """
    if not isinstance(cast("object", token), str):
        raise TypeError(f"a token must be a str, not {type(token).__name__}")
    if not _is_token(token):
        raise ValueError(f"not a token: {token!r}")
    return token


def check_protocol(protocol: str) -> str:
    """Check a protocol and return it.

    Raises:
        TypeError: It is not a str.
        ValueError: It is not ``name`` or ``name/version``.
    """
    if not isinstance(cast("object", protocol), str):
        raise TypeError(
            f"a protocol must be a str such as 'websocket', not "
            f"{type(protocol).__name__}"
        )
    if not _is_protocol(protocol):
        raise ValueError(f"not a protocol name[/version]: {protocol!r}")
    return protocol


def format_upgrade(protocols: Iterable[str]) -> bytes:
    """Return an Upgrade value with these protocols, in the order given.

    Raises:
        ValueError: A protocol is malformed.
    """
    return ", ".join(map(check_protocol, protocols)).encode("ascii")


def format_connection(options: Iterable[str]) -> bytes:
    """Return a Connection value with each option once, in the order given.

    Raises:
        ValueError: An option is not a token.
    """
    once = {check_token(option).lower(): option for option in options}
    return ", ".join(once.values()).encode("ascii")
