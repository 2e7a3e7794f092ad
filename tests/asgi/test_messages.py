"""What the messages of an application must have, before anything is sent."""

from __future__ import annotations

import pytest

from trio_upgrade._asgi.messages import (
    parse_body,
    parse_early_hint,
    parse_start,
    parse_trailers,
)

from .serving import START, start


@pytest.mark.parametrize("status", [None, "200", True, 200.0])
def test_status_of_another_type(status) -> None:
    """A status is an int."""
    with pytest.raises(
        TypeError, match=r"http\.response\.start: status must be an int"
    ):
        parse_start({**START, "status": status})


def test_status_missing() -> None:
    """A start without a status is a TypeError, no KeyError."""
    with pytest.raises(TypeError, match="status must be an int, not None"):
        parse_start({"type": "http.response.start"})


@pytest.mark.parametrize("status", [0, 100, 101, 103, 199, 1000])
def test_status_that_is_not_final(status: int) -> None:
    """A 1xx is no answer (RFC 9110 §15.2)."""
    with pytest.raises(ValueError, match=f"{status} is no final status"):
        parse_start(start(status))


@pytest.mark.parametrize(
    "headers",
    [
        5,
        "ab",
        b"ab",
        [b"ab"],
        [("a", "b")],
        [(b"a", "b")],
        [(b"a",)],
        [(b"a", b"b", b"c")],
        [None],
    ],
)
def test_headers_that_are_no_pairs_of_bytes(headers) -> None:
    """Headers are pairs of bytes, and no message shows their values."""
    with pytest.raises(TypeError, match=r"^http\.response\.start: headers must be"):
        parse_start({**START, "headers": headers})
    with pytest.raises(TypeError, match=r"^http\.response\.trailers: headers must be"):
        parse_trailers({"type": "http.response.trailers", "headers": headers})


def test_headers_of_any_iterable() -> None:
    """Lists, tuples and iterators are taken; without headers there are none."""
    pairs = iter([[b"a", b"b"], (b"c", b"d")])

    assert parse_start(start(200)).fields == []
    assert parse_start({**START, "headers": pairs}).fields == [
        (b"a", b"b"),
        (b"c", b"d"),
    ]


@pytest.mark.parametrize("status", [200, 204, 205, 304])
def test_framing_fields(status: int) -> None:
    """Transfer-Encoding is ours, and a 204 has no Content-Length (RFC 9110 §8.6)."""
    message = start(
        status, (b"Transfer-Encoding", b"chunked"), (b"Content-Length", b"0")
    )
    kept = [] if status in (204, 205) else [(b"Content-Length", b"0")]

    assert parse_start(message).fields == kept


def test_trailers_with_content_length() -> None:
    """Only a chunked body has trailers (RFC 9112 §7.1.2)."""
    message = start(200, (b"Content-LENGTH", b"1"), trailers=True)
    with pytest.raises(ValueError, match="trailers need a chunked body"):
        parse_start(message)

    assert parse_start(start(200, (b"a", b"b"), trailers=True)).trailers


@pytest.mark.parametrize(
    "given", [b"ab", bytearray(b"ab"), memoryview(b"ab")], ids=["b", "array", "view"]
)
def test_body_of_bytes(given) -> None:
    """Any bytes are taken, and the application may change its own afterwards."""
    data, more = parse_body({"type": "http.response.body", "body": given})

    assert (data, more) == (b"ab", False)
    assert type(data) is bytes


@pytest.mark.parametrize("given", ["ab", None, 5])
def test_body_of_another_type(given) -> None:
    """A body is bytes."""
    with pytest.raises(TypeError, match="body must be bytes, not"):
        parse_body({"type": "http.response.body", "body": given})


def test_body_missing() -> None:
    """Without values the body is empty and the last one."""
    assert parse_body({"type": "http.response.body"}) == (b"", False)


@pytest.mark.parametrize("links", [b"</a>", "</a>", 5, ["</a>"], [None]])
def test_early_hint_of_another_type(links) -> None:
    """Links are an iterable of bytes."""
    with pytest.raises(TypeError, match=r"links? must be"):
        parse_early_hint({"type": "http.response.early_hint", "links": links})


def test_early_hint() -> None:
    """Each link is a field of its own."""
    message = {"type": "http.response.early_hint", "links": (b"</a>", b"</b>")}

    assert parse_early_hint(message) == [(b"Link", b"</a>"), (b"Link", b"</b>")]
