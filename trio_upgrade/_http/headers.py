# Fields that are received (Headers) and fields that are sent (encode_fields).  Every
# field that a user gives is checked by encode_fields(), and only there.
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard, cast, final

from .._util import name_kind, public
from .tokens import check_token, connection_options, is_raw_token

Field: TypeAlias = tuple[bytes, bytes]
HeadersLike: TypeAlias = (
    Mapping[str, str | bytes]
    | Mapping[bytes, str | bytes]
    | Iterable[tuple[str | bytes, str | bytes]]
)

FRAMING_FIELDS = frozenset({b"content-length", b"transfer-encoding"})
# RFC 9110 §7.6.1, plus Connection itself.  Trailer is end to end there.
HOP_BY_HOP_FIELDS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)

# "Decisive fields": those on which the library itself bases a decision about a request.
# framing.check_request() collects their lines, so that a request that needs no other
# field costs no parsing.
DECISIVE_FIELDS = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"transfer-encoding",
        b"upgrade",
    }
)

# RFC 9110 §5.5: visible characters, blanks and obs-text.  CR, LF and NUL would allow an
# injection; the only use of the other control characters is to confuse a log.
_is_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch


@public
@final
class Headers(Mapping[str, str]):
    """The fields of a message: a read-only mapping that keeps repeated fields.

    Names compare without case, and are in lower case when iterated. A value is its
    field lines joined by ``", "`` (RFC 9110 §5.3). Octets above 0x7F are decoded as
    Latin-1, which loses none of them.

    Args:
        raw: The pairs of name and value.
        head: The message head that has the fields, given instead of ``raw``. It must be
            well formed: each line ends in CRLF and no line is folded. It is parsed when
            a field is first looked up.
        decisive: The values of the decisive fields in ``head``, line by line, if they
            are known; the keys are names in lower case.
    """

    __slots__ = ("_by_name", "_decisive", "_head", "_options", "_raw")

    def __init__(
        self,
        raw: Iterable[Field] = (),
        *,
        head: bytes | None = None,
        decisive: dict[bytes, list[bytes]] | None = None,
    ) -> None:
        self._raw: tuple[Field, ...] | None = tuple(raw) if head is None else None
        self._head = head
        self._decisive = decisive
        # Values by name in lower case, filled at the first look-up.
        self._by_name: dict[bytes, list[bytes]] | None = None
        self._options: frozenset[str] | None = None

    @property
    def raw(self) -> tuple[Field, ...]:
        """The pairs of name and value as received: same order, repetition and case."""
        if self._raw is None:
            assert self._head is not None
            lines = [line.partition(b":") for line in self._head.split(b"\r\n")[1:-2]]
            self._raw = tuple([(name, value.strip(b" \t")) for name, _, value in lines])
        return self._raw

    def lines(self, name: bytes) -> Sequence[bytes]:
        """Return the value of each line of a field, in order, as bytes.

        Args:
            name: The name, in lower case.
        """
        if self._decisive is not None and name in DECISIVE_FIELDS:
            return self._decisive.get(name, ())
        if self._by_name is None:
            self._by_name = {}
            for key, value in self.raw:
                self._by_name.setdefault(key.lower(), []).append(value)
        return self._by_name.get(name, ())

    def options(self) -> frozenset[str]:
        """Return the connection options, in lower case (RFC 9110 §7.6.1)."""
        if self._options is None:
            self._options = connection_options(self.lines(b"connection"))
        return self._options

    def get_list(self, name: str) -> list[str]:
        """Return the value of each line of a field, in order; empty if it is absent.

        Lines are not split at commas, since Set-Cookie and dates contain commas.
        """
        key = name.lower().encode("latin-1", "replace")
        return [value.decode("latin-1") for value in self.lines(key)]

    def end_to_end(self) -> list[Field]:
        """Return the pairs that a proxy may forward (RFC 9110 §7.6.1).

        Hop-by-hop fields and the fields that Connection names are left out. Repeated
        fields stay.
        """
        named = [name.encode("latin-1") for name in self.options()]
        dropped = HOP_BY_HOP_FIELDS.union(named)
        return [pair for pair in self.raw if pair[0].lower() not in dropped]

    def without(self, *names: str | bytes) -> Headers:
        """Return the same fields but those of these names; the order stays.

        Args:
            names: Names in any case; one that no field has changes nothing.

        Raises:
            TypeError: A name is neither str nor bytes.
        """
        dropped = {_fold_name(name) for name in names}
        return Headers([pair for pair in self.raw if pair[0].lower() not in dropped])

    def replaced(self, name: str | bytes, value: str | bytes) -> Headers:
        """Return these fields with one line of a name instead of all that it had.

        The line stands where the first one stood, or at the end if there was none.

        Args:
            name: The name, in the spelling for the wire.
            value: The value.

        Raises:
            TypeError: The name or the value is neither str nor bytes.
            ValueError: The name is no token, or the value has a control character.
        """
        (line,) = encode_fields([(name, value)])
        key = line[0].lower()
        raw = self.raw
        first = next(
            (at for at, pair in enumerate(raw) if pair[0].lower() == key), len(raw)
        )
        kept = [pair for pair in raw[first:] if pair[0].lower() != key]
        return Headers([*raw[:first], line, *kept])

    def __getitem__(self, name: str) -> str:
        values = self.get_list(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_list(name))

    def __iter__(self) -> Iterator[str]:
        return iter(
            dict.fromkeys(name.lower().decode("latin-1") for name, _ in self.raw)
        )

    def __len__(self) -> int:
        return len({name.lower() for name, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({list(self.raw)!r})"


def _fold_name(name: object) -> bytes:
    if isinstance(name, bytes):
        return name.lower()
    if not isinstance(name, str):
        raise TypeError(f"a field name must be str or bytes, not {name_kind(name)}")
    # A name with other characters is no token, and so no field has it.
    return name.lower().encode("latin-1", "replace")


def find_head(headers: Headers) -> bytes | None:
    """Return the message head from which ``headers`` was made, None if there is none.

    A caller that keeps this instead of ``headers`` can make an equal Headers later.
    """
    return headers._head  # pyright: ignore[reportPrivateUsage]


# Shared by all messages that have no fields; it never changes.
NO_FIELDS = Headers()


def field_values(fields: Headers | Iterable[Field], name: bytes) -> Sequence[bytes]:
    """Return the values of one field, line by line; give ``name`` in lower case."""
    # By exact type: isinstance() is slow with abstract classes.
    if type(fields) is Headers:
        return fields.lines(name)
    return [value for key, value in fields if key.lower() == name]


def replace_fields(fields: Iterable[Field], headers: HeadersLike) -> tuple[Field, ...]:
    """Return fields with those that a user gave instead of all of the same names.

    Raises:
        TypeError: As :func:`encode_fields` does.
        ValueError: As :func:`encode_fields` does.
    """
    given = encode_fields(headers)
    names = {name.lower() for name, _ in given}
    kept = [pair for pair in fields if pair[0].lower() not in names]
    return (*kept, *given)


def encode_fields(
    headers: HeadersLike, *, forbidden: frozenset[bytes] = frozenset()
) -> tuple[Field, ...]:
    """Check the fields that a user gave, and return them as pairs of bytes.

    Args:
        headers: Pairs or a mapping, of str or bytes.
        forbidden: The names, in lower case, of the fields that only the library writes.

    Raises:
        TypeError: These are no pairs, or a name or a value is neither str nor bytes.
        ValueError: A name is not a token, a value has a control character, or a name is
            forbidden. The message names the field.
    """
    pairs: Any = headers
    given = cast("object", headers)
    if type(given) is tuple and not given:
        return ()  # The usual case; isinstance() is slow with abstract classes.
    if isinstance(headers, Headers):
        pairs = headers.raw  # Not items(), which would join repeated fields.
    elif isinstance(headers, dict | Mapping):
        pairs = cast("Mapping[Any, Any]", headers).items()
    elif isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(
            "fields must be a mapping, or pairs of name and value, "
            f"not {type(given).__name__}"
        )
    return tuple([_encode_field(pair, forbidden) for pair in pairs])


def _encode_field(pair: object, forbidden: frozenset[bytes]) -> Field:
    if _is_field(pair) and pair[0].lower() not in forbidden:
        return pair
    name, value = _split_pair(pair)
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(cast("object", text), str):
        raise TypeError(f"a field name must be str or bytes, not {type(name).__name__}")
    raw_name = check_token(text).encode("ascii")
    if raw_name.lower() in forbidden:
        raise ValueError(f"{text} is written by the library and cannot be given")
    raw_value: object = value
    try:
        if isinstance(value, str):
            raw_value = value.encode("latin-1")
    except UnicodeEncodeError:
        # No message shows the value: it may be a secret.
        raise ValueError(f"{text}: not Latin-1, encode it first") from None
    # Not bytes(value): bytes(5) would be five NULs.
    if not isinstance(raw_value, bytes):
        kind = type(value).__name__
        if isinstance(raw_value, list | tuple):
            kind += "; for a repeated field give a pair for each value"
        raise TypeError(f"{text}: the value must be str or bytes, not {kind}")
    raw_value = raw_value.strip(b" \t")
    if not _is_value(raw_value):
        raise ValueError(f"{text}: control characters in the value")
    return raw_name, raw_value


def _is_field(pair: object) -> TypeGuard[Field]:
    # Whether this is already as we would return it: the short way for the fields of a
    # message that is passed on.
    match pair:
        case (bytes(name), bytes(value)):
            return (
                type(pair) is tuple
                and is_raw_token(name) is not None
                and _is_value(value) is not None
                and value.strip(b" \t") == value
            )
        case _:
            return False


def _split_pair(pair: object) -> tuple[str | bytes, str | bytes]:
    try:
        # A str of two characters would pass for a pair.
        if not isinstance(pair, str | bytes):
            name, value = cast("tuple[str | bytes, str | bytes]", pair)
            return name, value
    except (TypeError, ValueError):
        pass
    # The message does not show the pair: it may have a secret.
    what = type(pair).__name__
    if isinstance(pair, tuple | list):
        what = f"a {what} of {len(cast('Sequence[Any]', pair))}"
    raise TypeError(f"a field must be a pair of name and value, not {what}")
