"""The grammar of Connection and Upgrade: splitting, comparing, checking, writing."""

from __future__ import annotations

from string import ascii_uppercase

import pytest
from hypothesis import given, strategies as st

from trio_upgrade import Offers
from trio_upgrade._http.tokens import (
    check_protocol,
    check_token,
    connection_options,
    fold_protocol,
    format_connection,
    format_upgrade,
    is_protocol_list,
    parse_protocols,
    split_list,
)

# RFC 9110 §5.6.2, written out again on purpose: the tests do not trust the code.
TCHARS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

tokens = st.text(TCHARS, min_size=1, max_size=12)
protocols = tokens | st.builds("{}/{}".format, tokens, tokens)

# Strings that are not tokens: injections first, then other characters.
NOT_TOKENS = [
    "",
    "a\r\nX: y",
    "a\r",
    "a\n",
    "a\0",
    "\na",
    "a b",
    " a",
    "a\t",
    "a,b",
    "a;b",
    "a:b",
    '"a"',
    "a@b",
    "a(b)",
    "[a]",
    "a\x7f",
    "a\x80",
    "é",
    "\u212a",  # the Kelvin sign, which lower() makes a "k"
    "\u0661",  # a digit for str.isdigit()
]


class TestSplitList:
    """Received lists."""

    @pytest.mark.ids("U28")
    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ([], []),
            ([b""], []),
            ([b" \t "], []),
            ([b"a"], ["a"]),
            ([b"a,b"], ["a", "b"]),
            ([b" \ta \t,\t b\t"], ["a", "b"]),
            ([b",,a,, ,\t,b,,"], ["a", "b"]),
            ([b"a", b"b, c", b"", b"d"], ["a", "b", "c", "d"]),
            ([b"a,", b",b"], ["a", "b"]),
            ([b"A b;q=1"], ["A b;q=1"]),
            ([b"\xe9\xff"], ["\xe9\xff"]),
            # Blanks are SP and HTAB only; str.strip() would also strip others.
            ([b"\x0ba\xa0"], ["\x0ba\xa0"]),
        ],
    )
    def test_elements(self, lines: list[bytes], expected: list[str]) -> None:
        """All lines form one list, and empty elements are dropped (RFC 9110 §5.6.1)."""
        got = list(split_list(lines))

        assert got == expected

    @pytest.mark.ids("U28", "CVE-2021-32640")
    def test_commas_without_end(self) -> None:
        """A megabyte of commas and blanks is split in linear time."""
        assert list(split_list([b"," * 1_000_000])) == []
        assert list(split_list([b" " * 1_000_000])) == []
        assert list(split_list([b", \t" * 333_333 + b"a"])) == ["a"]

    @given(st.lists(st.lists(tokens)))
    def test_round_trip(self, lines: list[list[str]]) -> None:
        """Joined tokens are split into the same tokens, on any number of lines."""
        raw = [" , ".join(line).encode() for line in lines]

        assert list(split_list(raw)) == [token for line in lines for token in line]


class TestConnectionOptions:
    """The set of connection options."""

    @pytest.mark.ids("U25", "U28")
    @pytest.mark.parametrize(
        ("lines", "expected"),
        [
            ([], set()),
            ([b"Upgrade"], {"upgrade"}),
            ([b"keep-alive, UPGRADE"], {"keep-alive", "upgrade"}),
            ([b"close", b", ,TE"], {"close", "te"}),
            ([b"upgrade", b"Upgrade"], {"upgrade"}),
            ([b"notupgrade"], {"notupgrade"}),
            ([b"upgrade-insecure"], {"upgrade-insecure"}),
        ],
    )
    def test_options(self, lines: list[bytes], expected: set[str]) -> None:
        """Options compare as whole elements and without case (RFC 9110 §7.6.1)."""
        assert connection_options(lines) == expected


class TestOffers:
    """The sequence of the protocols that a request offers."""

    OFFERS = Offers(["WebSocket", "h2c", "Foo/1.0A", "h2c", "foo/2"])

    @pytest.mark.ids("U03")
    @pytest.mark.parametrize(
        ("protocol", "index"),
        [
            ("WebSocket", 0),
            ("websocket", 0),
            ("WEBSOCKET", 0),
            ("H2C", 1),
            ("foo/1.0A", 2),
            ("FOO/1.0A", 2),
            ("FOO/2", 4),
        ],
    )
    def test_offered(self, protocol: str, index: int) -> None:
        """Names compare without case (RFC 9110 §7.8)."""
        assert protocol in self.OFFERS
        assert self.OFFERS.index(protocol) == index

    @pytest.mark.ids("U03", "U06")
    @pytest.mark.parametrize(
        "protocol",
        ["web", "websocket/13", "foo", "foo/", "foo/1.0a", "foo/1.0", "foo/3", "", "/"],
    )
    def test_not_offered(self, protocol: str) -> None:
        """Versions compare exactly; a missing one matches none (RFC 9110 §7.8)."""
        assert protocol not in self.OFFERS
        assert self.OFFERS.count(protocol) == 0

        with pytest.raises(ValueError, match="not in tuple"):
            self.OFFERS.index(protocol)

    @pytest.mark.parametrize("thing", [None, 1, b"h2c", ("h2c",)])
    def test_other_types_are_not_offered(self, thing: object) -> None:
        """``in`` accepts an object of any type."""
        assert thing not in self.OFFERS

    @pytest.mark.ids("U01")
    def test_sequence(self) -> None:
        """The offers keep the client's order and spelling (RFC 9110 §7.8)."""
        offers = self.OFFERS

        assert len(offers) == 5
        assert list(offers) == ["WebSocket", "h2c", "Foo/1.0A", "h2c", "foo/2"]
        assert offers[0] == "WebSocket"
        assert offers[-1] == "foo/2"
        assert offers[1:3] == ("h2c", "Foo/1.0A")
        assert next(reversed(offers)) == "foo/2"
        assert offers.count("H2c") == 2
        assert repr(Offers(["a", "B/1"])) == "Offers(['a', 'B/1'])"
        with pytest.raises(IndexError):
            offers[5]

    def test_index_within_bounds(self) -> None:
        """index() takes start and stop, as other sequences do."""
        assert self.OFFERS.index("h2c", 2) == 3
        assert self.OFFERS.index("h2c", 0, 2) == 1
        assert self.OFFERS.index("foo/2", -1) == 4
        with pytest.raises(ValueError, match="not in tuple"):
            self.OFFERS.index("h2c", 2, 3)
        with pytest.raises(ValueError, match="not in tuple"):
            self.OFFERS.index("websocket", 1)

    def test_empty(self) -> None:
        """Empty offers are false, others are true."""
        assert not Offers()
        assert Offers(["a"])
        assert repr(Offers()) == "Offers([])"

    @pytest.mark.ids("U03")
    @given(tokens, tokens)
    def test_fold(self, name: str, version: str) -> None:
        """Folding changes the name to lower case and nothing else (RFC 9110 §7.8)."""
        assert fold_protocol(name) == name.lower()
        assert fold_protocol(f"{name}/{version}") == f"{name.lower()}/{version}"


class TestParseProtocols:
    """The Upgrade lines that a peer sends."""

    @pytest.mark.ids("U01", "U28")
    @pytest.mark.parametrize(
        ("lines", "expected", "well_formed"),
        [
            ([b"echo"], ["echo"], True),
            ([b"HTTP/2.0, IRC/6.9, RTA/x11"], ["HTTP/2.0", "IRC/6.9", "RTA/x11"], True),
            ([b"a", b"b"], ["a", "b"], True),
            ([b", a,,"], ["a"], True),
            ([], [], True),
            ([b""], [], True),
            ([b"a, b/"], ["a"], False),
            ([b"/1, a"], ["a"], False),
            ([b"a/1/2"], [], False),
            ([b"a b, c"], ["c"], False),
            ([b"a\x00"], [], False),
            ([b"a\n"], [], False),
            ([b"caf\xe9, a"], ["a"], False),
            ([b'"a"'], [], False),
            ([b"a;q=1", b"a"], ["a"], False),
        ],
    )
    def test_lines(
        self, lines: list[bytes], expected: list[str], well_formed: bool
    ) -> None:
        """A malformed element is left out, the others stay (RFC 9110 §7.8)."""
        assert list(parse_protocols(lines)) == expected
        assert is_protocol_list(lines) is well_formed

    @given(st.lists(st.binary()))
    def test_arbitrary_bytes(self, lines: list[bytes]) -> None:
        """Any bytes are accepted, and each protocol that is returned is well formed."""
        offers = parse_protocols(lines)
        options = connection_options(lines)

        assert all(check_protocol(protocol) in offers for protocol in offers)
        assert is_protocol_list(lines) is (len(offers) == len(list(split_list(lines))))
        # Only ASCII has to be in lower case: the options we look for are tokens.
        assert not any(set(option) & set(ascii_uppercase) for option in options)


class TestCheck:
    """Tokens and protocols that may be sent."""

    def test_token_alphabet(self) -> None:
        """A single character is a token exactly if it is a tchar (RFC 9110 §5.6.2)."""
        for code in range(0x200):
            character = chr(code)
            if character in TCHARS:
                assert check_token(character) == character
                assert check_protocol(character) == character
            else:
                for check in (check_token, check_protocol):
                    with pytest.raises(ValueError, match=r"^not a "):
                        check(character)

    @pytest.mark.ids("CVE-2026-1527")
    @pytest.mark.parametrize("text", [*NOT_TOKENS, "a/b"])
    def test_bad_token(self, text: str) -> None:
        """Nothing can be injected through a token; the error quotes it escaped."""
        with pytest.raises(ValueError, match=r"^not a token: ") as caught:
            check_token(text)

        assert str(caught.value) == f"not a token: {text!r}"
        assert str(caught.value).isprintable()

    @pytest.mark.ids("CVE-2026-1527")
    @pytest.mark.parametrize(
        "text",
        [*NOT_TOKENS, "/", "a/", "/1", "a//1", "a/1/2", "a/1\r\nX: y", "a /1", "a/1\n"],
    )
    def test_bad_protocol(self, text: str) -> None:
        """Nothing can be injected through a protocol; the error quotes it escaped."""
        with pytest.raises(ValueError, match=r"^not a protocol") as caught:
            check_protocol(text)

        assert str(caught.value) == f"not a protocol name[/version]: {text!r}"

    @given(st.text())
    def test_arbitrary_text(self, text: str) -> None:
        """A check returns its argument or raises ValueError."""
        for check, alphabet in ((check_token, TCHARS), (check_protocol, TCHARS + "/")):
            try:
                assert check(text) == text
            except ValueError:
                continue
            assert set(text) <= set(alphabet)


class TestFormat:
    """Lists to send."""

    @pytest.mark.ids("U01", "U28")
    @pytest.mark.parametrize(
        ("given_protocols", "expected"),
        [
            (["echo"], b"echo"),
            (["b", "A/1", "c"], b"b, A/1, c"),
            (["a", "A"], b"a, A"),
            (iter(("x", "y")), b"x, y"),
        ],
    )
    def test_upgrade(self, given_protocols: list[str], expected: bytes) -> None:
        """Protocols are sent in the given order and spelling (RFC 9110 §7.8)."""
        assert format_upgrade(given_protocols) == expected

    @pytest.mark.ids("U28", "CVE-2026-1527")
    @pytest.mark.parametrize("bad", NOT_TOKENS)
    def test_bad_element(self, bad: str) -> None:
        """A list with a malformed or empty element is refused."""
        with pytest.raises(ValueError, match=r"^not a protocol"):
            format_upgrade(["good", bad])
        with pytest.raises(ValueError, match=r"^not a token"):
            format_connection(["good", bad])

    @pytest.mark.ids("U25")
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ([], b""),
            (["Upgrade"], b"Upgrade"),
            (["Upgrade", "keep-alive", "TE"], b"Upgrade, keep-alive, TE"),
            (["b", "a"], b"b, a"),
            (["Upgrade", "close", "upgrade"], b"upgrade, close"),
        ],
    )
    def test_connection(self, options: list[str], expected: bytes) -> None:
        """An option given in two spellings is sent once (RFC 9110 §7.6.1)."""
        assert format_connection(options) == expected

    @pytest.mark.ids("U01")
    @given(st.lists(protocols))
    def test_upgrade_round_trip(self, offered: list[str]) -> None:
        """A formatted Upgrade value parses to the same protocols (RFC 9110 §7.8)."""
        wire = format_upgrade(offered)

        assert list(parse_protocols([wire])) == offered
        assert is_protocol_list([wire])

    @pytest.mark.ids("U25")
    @given(st.lists(tokens))
    def test_connection_round_trip(self, options: list[str]) -> None:
        """A formatted Connection value parses to the same options (RFC 9110 §7.6.1)."""
        wire = format_connection(options)

        assert connection_options([wire]) == {option.lower() for option in options}
        assert len(list(split_list([wire]))) == len(connection_options([wire]))


def test_token_of_another_type() -> None:
    """A token is a str; the message says what was given."""
    with pytest.raises(TypeError, match=r"a token must be a str, not int"):
        check_token(5)  # type: ignore[arg-type]
