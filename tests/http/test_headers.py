"""Fields: how received fields are read, and how fields to send are checked."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import Headers
from trio_upgrade._http.headers import (
    FRAMING_FIELDS,
    HOP_BY_HOP_FIELDS,
    encode_fields,
    field_values,
)

RAW = (
    (b"Host", b"x"),
    (b"Set-Cookie", b"a=1, b"),
    (b"X-Twice", b"1"),
    (b"set-cookie", b"c=2"),
    (b"x-TWICE", b""),
    (b"Obs", b"caf\xe9\xff"),
)

names = st.text(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    min_size=1,
)
# RFC 9110 §5.5, written out again on purpose: the tests do not trust the code.
VALUE_OCTETS = {0x09, *range(0x20, 0x7F), *range(0x80, 0x100)}
values = st.lists(st.sampled_from(sorted(VALUE_OCTETS))).map(bytes)


class TestHeaders:
    """Headers as a mapping."""

    @pytest.mark.parametrize(
        ("name", "value", "lines"),
        [
            ("host", "x", ["x"]),
            ("Host", "x", ["x"]),
            ("HOST", "x", ["x"]),
            ("set-cookie", "a=1, b, c=2", ["a=1, b", "c=2"]),
            ("X-Twice", "1, ", ["1", ""]),
            ("obs", "café\xff", ["café\xff"]),
        ],
    )
    def test_present(self, name: str, value: str, lines: list[str]) -> None:
        """Names compare without case, and lines are joined in order (RFC 9110 §5.3)."""
        headers = Headers(RAW)

        assert headers[name] == value
        assert headers.get(name) == value
        assert name in headers
        assert headers.get_list(name) == lines

    @pytest.mark.parametrize("name", ["", "hos", "host ", "x", "h\u014dst", "\u20ac"])
    def test_absent(self, name: str) -> None:
        """For an absent field there is a KeyError, a default or an empty list."""
        headers = Headers(RAW)

        assert name not in headers
        assert headers.get(name) is None
        assert headers.get(name, "y") == "y"
        assert headers.get_list(name) == []
        with pytest.raises(KeyError) as caught:
            headers[name]
        assert caught.value.args == (name,)

    @pytest.mark.parametrize("thing", [None, 4, b"host", ("host",)])
    def test_other_types_are_absent(self, thing: object) -> None:
        """``in`` accepts an object of any type."""
        assert thing not in Headers(RAW)

    def test_present_but_empty(self) -> None:
        """A field with an empty value is present (RFC 9110 §5.5)."""
        headers = Headers([(b"Accept", b"")])

        assert "accept" in headers
        assert headers["Accept"] == ""

    def test_iteration(self) -> None:
        """Iteration gives each name once, in lower case, in order of appearance."""
        headers = Headers(RAW)

        assert list(headers) == ["host", "set-cookie", "x-twice", "obs"]
        assert len(headers) == 4
        assert dict(headers) == {
            "host": "x",
            "set-cookie": "a=1, b, c=2",
            "x-twice": "1, ",
            "obs": "café\xff",
        }

    def test_raw(self) -> None:
        """The raw pairs keep order, repetition and case (RFC 9110 §5.3)."""
        headers = Headers(iter(RAW))

        assert headers.raw == RAW
        assert repr(headers) == f"Headers({list(RAW)!r})"

    def test_empty(self) -> None:
        """A message may have no fields."""
        headers = Headers()

        assert not headers
        assert headers.raw == ()
        assert list(headers) == []
        assert headers.end_to_end() == []

    def test_read_only(self) -> None:
        """Headers cannot be changed, since several readers share them."""
        headers = Headers(RAW)

        with pytest.raises(TypeError):
            headers["host"] = "evil"  # type: ignore[index]
        with pytest.raises(AttributeError):
            headers.raw = ()  # type: ignore[misc]
        with pytest.raises(AttributeError):
            headers.extra = 1  # type: ignore[attr-defined]

    @given(st.lists(st.tuples(names.map(str.encode), st.binary())))
    def test_arbitrary_values(self, raw: list[tuple[bytes, bytes]]) -> None:
        """Any bytes that a peer sends can be read, and none are lost."""
        headers = Headers(raw)

        assert len(headers) == len(list(headers))
        assert headers.raw == tuple(raw)
        assert set(headers.end_to_end()) <= set(raw)
        for name in headers:
            assert [value.encode("latin-1") for value in headers.get_list(name)] == [
                value for key, value in raw if key.lower() == name.encode("latin-1")
            ]


class TestEndToEnd:
    """The fields that a proxy may forward."""

    @pytest.mark.ids("U22", "U23")
    def test_hop_by_hop_fields(self) -> None:
        """Hop-by-hop fields are dropped, named or not (RFC 9110 §7.6.1)."""
        kept = [(b"Host", b"x"), (b"Trailer", b"T"), (b"Content-Length", b"0")]
        hop = [
            (b"Connection", b"close"),
            (b"Keep-Alive", b"timeout=5"),
            (b"PROXY-connection", b"keep-alive"),
            (b"te", b"trailers"),
            (b"Transfer-Encoding", b"chunked"),
            (b"Upgrade", b"echo"),
        ]
        headers = Headers([hop[0], kept[0], *hop[1:4], kept[1], *hop[4:], kept[2]])

        assert headers.end_to_end() == kept
        assert {name.lower() for name, _ in hop} == HOP_BY_HOP_FIELDS

    @pytest.mark.ids("U22", "U25", "U28")
    def test_named_fields(self) -> None:
        """A field that any Connection line names is dropped (RFC 9110 §7.6.1)."""
        headers = Headers(
            [
                (b"Connection", b"x-one, ,X-TWO"),
                (b"X-One", b"1"),
                (b"x-two", b"2"),
                (b"X-Three", b"3"),
                (b"X-Four", b"4"),
                (b"connection", b"x-four"),
                (b"X-One", b"again"),
                (b"X-Three", b"again"),
            ]
        )

        assert headers.end_to_end() == [(b"X-Three", b"3"), (b"X-Three", b"again")]

    @pytest.mark.ids("U22")
    def test_named_octets(self) -> None:
        """A connection option that is not a token drops no field and raises nothing."""
        headers = Headers([(b"Connection", b"caf\xc9, \x00"), (b"Host", b"x")])

        assert headers.end_to_end() == [(b"Host", b"x")]


class TestFieldValues:
    """Reading the lines of one field."""

    def test_lines(self) -> None:
        """The lines come from Headers or from pairs, as bytes."""
        for fields in (Headers(RAW), RAW, iter(RAW)):
            assert field_values(fields, b"set-cookie") == [b"a=1, b", b"c=2"]
        assert field_values(RAW, b"set") == []
        assert field_values((), b"host") == []


class TestOthers:
    """Headers made of others; the first ones stay."""

    def test_without(self) -> None:
        """Fields of these names are left out, in any case; the order stays."""
        headers = Headers(RAW)

        assert headers.without("SET-cookie", b"X-twice", "no", "\u20ac").raw == (
            (b"Host", b"x"),
            (b"Obs", b"caf\xe9\xff"),
        )
        assert headers.without().raw == headers.raw == RAW

    @pytest.mark.parametrize("name", [None, 5, ["a"]])
    def test_without_another_type(self, name: object) -> None:
        """A name is str or bytes."""
        with pytest.raises(TypeError, match="a field name must be str or bytes, not"):
            Headers(RAW).without(name)  # type: ignore[arg-type]

    def test_replaced(self) -> None:
        """One line takes the place of the first, and the others of its name go."""
        headers = Headers(RAW)

        assert headers.replaced("SET-COOKIE", " d=3").raw == (
            (b"Host", b"x"),
            (b"SET-COOKIE", b"d=3"),
            (b"X-Twice", b"1"),
            (b"x-TWICE", b""),
            (b"Obs", b"caf\xe9\xff"),
        )
        assert headers.replaced(b"New", b"1").raw == (*RAW, (b"New", b"1"))
        assert headers.raw == RAW

    def test_replaced_is_checked(self) -> None:
        """Nothing can be injected (RFC 9110 §5.5)."""
        with pytest.raises(ValueError, match="X: control characters"):
            Headers(RAW).replaced("X", "a\r\nb")
        with pytest.raises(ValueError, match="not a token"):
            Headers(RAW).replaced("X\r\n", "a")
        with pytest.raises(TypeError, match="X: the value must be str or bytes"):
            Headers(RAW).replaced("X", None)  # type: ignore[arg-type]


class TestEncodeFields:
    """The check of all fields to send."""

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ((), ()),
            ({}, ()),
            ({"A": "b"}, ((b"A", b"b"),)),
            ({b"A": b"b"}, ((b"A", b"b"),)),
            ([("A", "1"), ("A", "2")], ((b"A", b"1"), (b"A", b"2"))),
            ([("A", "1"), (b"a", b"3")], ((b"A", b"1"), (b"a", b"3"))),
            (iter([(b"X-y_z", "")]), ((b"X-y_z", b""),)),
            (OrderedDict(B="2", A="1"), ((b"B", b"2"), (b"A", b"1"))),
            ({"A": " \tb c\t d \t"}, ((b"A", b"b c\t d"),)),
            ({"A": b"\xff\x80"}, ((b"A", b"\xff\x80"),)),
            ({"A": "é"}, ((b"A", b"\xe9"),)),
            (Headers(RAW), RAW),
        ],
    )
    def test_accepted(self, headers, expected) -> None:
        """Only the blanks around a value are dropped (RFC 9110 §5.5)."""
        assert encode_fields(headers) == expected

    @pytest.mark.ids("U29", "CVE-2026-1527")
    @pytest.mark.parametrize("as_bytes", [False, True])
    @pytest.mark.parametrize("position", ["start", "middle", "end"])
    @pytest.mark.parametrize(
        "octet", sorted(set(range(0x100)) - VALUE_OCTETS), ids="0x{:02x}".format
    )
    def test_control_character(self, octet: int, position: str, as_bytes: bool) -> None:
        """CR, LF, NUL and the like are refused anywhere in a value (RFC 9110 §5.5)."""
        text = {"start": "{}a", "middle": "a{}b", "end": "a{}"}[position]
        value = text.format(chr(octet))
        with pytest.raises(ValueError, match="X-Field: control characters") as caught:
            encode_fields({"X-Field": value.encode("latin-1") if as_bytes else value})

        # The message does not show the value: it may be a secret.
        assert str(caught.value) == "X-Field: control characters in the value"

    @pytest.mark.ids("U29")
    @pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\n b", "\r\n\r\nGET /"])
    def test_injection(self, value: str) -> None:
        """A value with a line end is refused, also among good fields (RFC 9110 §5.5)."""
        with pytest.raises(ValueError, match=r"^X-Bad: control characters"):
            encode_fields([("X-Good", "1"), ("X-Bad", value)])

    @pytest.mark.ids("U29")
    @pytest.mark.parametrize("as_bytes", [False, True])
    @pytest.mark.parametrize(
        "name",
        ["", "A\r\nEvil", "A\n", "\0", "A B", " A", "A:", "A\t", "\xe9", "A/B", '"A"'],
    )
    def test_bad_name(self, name: str, as_bytes: bool) -> None:
        """A name must be a token (RFC 9110 §5.1); the error quotes it with escapes."""
        with pytest.raises(ValueError, match="not a token") as caught:
            encode_fields([(name.encode("latin-1") if as_bytes else name, "v")])

        assert str(caught.value) == f"not a token: {name!r}"

    def test_not_latin_1(self) -> None:
        """A value outside Latin-1 is refused; the error names the field."""
        with pytest.raises(ValueError, match=r"^X-Field: not Latin-1") as caught:
            encode_fields({"X-Field": "\u20ac"})

        assert caught.value.__cause__ is None
        with pytest.raises(ValueError, match="not a token"):
            encode_fields({"\u20ac": "v"})

    @pytest.mark.parametrize(
        "name", ["Content-Length", "content-length", b"CONTENT-Length"]
    )
    def test_forbidden(self, name: str | bytes) -> None:
        """A field that the library writes cannot be given, in any case."""
        shown = name.decode() if isinstance(name, bytes) else name
        with pytest.raises(ValueError, match="is written by the library") as caught:
            encode_fields([("A", "b"), (name, "0")], forbidden=FRAMING_FIELDS)

        assert str(caught.value).startswith(f"{shown} is")
        assert encode_fields([(name, "0")]) == ((shown.encode(), b"0"),)

    @given(st.lists(st.tuples(names, values)))
    def test_round_trip(self, fields: list[tuple[str, bytes]]) -> None:
        """Encoded fields read back the same, except for blanks around a value."""
        headers = Headers(encode_fields(fields))

        assert headers.raw == tuple(
            (name.encode(), value.strip(b" \t")) for name, value in fields
        )
        assert encode_fields(headers) == headers.raw

    @given(st.lists(st.tuples(st.text() | st.binary(), st.text() | st.binary())))
    def test_arbitrary_fields(self, fields) -> None:
        """Encoding raises ValueError or returns only allowed octets."""
        try:
            encoded = encode_fields(fields)
        except ValueError:
            return
        assert len(encoded) == len(fields)
        for name, value in encoded:
            assert name.isascii()
            assert set(value) <= VALUE_OCTETS


@pytest.mark.parametrize("value", [5, None, [b"a"]])
def test_value_of_another_type(value: object) -> None:
    """A value is str or bytes; bytes(5) would be five NULs."""
    with pytest.raises(TypeError, match="X: the value must be str or bytes"):
        encode_fields([("X", value)])  # type: ignore[list-item]


@pytest.mark.parametrize("value", [b" a", b"a\t", b" \ta \t", b" "])
def test_pairs_of_bytes_are_stripped(value: bytes) -> None:
    """The short way for pairs of bytes takes none with blanks around the value."""
    assert encode_fields([(b"X", value)]) == ((b"X", value.strip(b" \t")),)
