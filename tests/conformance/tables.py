# Makes conformance.md, node.md and ends.md in docs/topics from the rows and the marks of
# the tests.
# The marks are read from the source files, so no test has to be imported.
from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .ends import ENDINGS, KINDS
from .faults import FAULTS
from .node import CASES
from .requirements import REQUIREMENTS, ROLES, WEBSOCKET, Requirement

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "docs" / "topics" / "conformance.md"
NODE = ROOT / "docs" / "topics" / "node.md"
ENDS = ROOT / "docs" / "topics" / "ends.md"
# Marks that are not rows: features and complaints of Node's users, advisories, issues of
# other projects.
is_reference = re.compile(
    r"[IPRT][0-9]+|CVE-[0-9]{4}-[0-9]+|RFC[0-9]+|go#[0-9]+"
).fullmatch

_CONFORMANCE_PAGE = """\
# Conformance

What RFC 9110, RFC 9112 and RFC 9931 require of an HTTP/1.1 server, client or recipient
that can switch protocols, what trio_upgrade does, and the tests in `tests/conformance`
that prove it. Each test runs over a scripted connection, with the bytes cut in two at
every point and byte by byte; where it makes sense, also over memory streams, TCP and TLS.
`nox -s mutants` breaks the rules one by one and checks that the tests fail.

Roles: {roles}. Levels are the RFCs' keywords; *desc* is a description without a keyword.
This page is made by `nox -s tables`.

| id | where | role | level | what we do | tests |
| --- | --- | --- | --- | --- | --- |
{rows}

## WebSocket

What RFC 6455 requires of the handshake, and of masks, for `trio_upgrade.websocket`. The
rest of its rules are tried by Autobahn's testsuite.

| id | where | role | level | what we do | tests |
| --- | --- | --- | --- | --- | --- |
{websocket}

## Faults

What was found by replaying public reports of people who dial and serve, and what is
right.

| id | situation | what we do | tests |
| --- | --- | --- | --- |
{faults}
"""
_NODE_PAGE = """\
# Beside Node

What is received, what trio_upgrade does, and what Node.js 20, 24 and 26 do if they do
something else. `UP` is a well-formed offer, `101` the legal answer to it.
S rows are about servers, C rows about clients. This page is made by `nox -s tables`.

| id | what is received | what we do | Node | tests |
| --- | --- | --- | --- | --- |
{rows}
"""
_ENDS_PAGE = """\
# How a stream ends

How the block or the handler that owns a stream finishes (by a return, an exception or a
cancellation) decides what the peer sees. The owner is the task of a server's connection
(its handler, or an app that has switched by `accept_upgrade` or `accept_connect`), the
`async with` of a client's `UpgradedConnection`, or `stream_scope(stream)` for a stream
that this library did not open. All of them end a stream in the same way.

`tests/conformance/test_ends.py` compares each cell with what a peer sees that is not
ours, for each owner. The TLS columns are over TCP. `nox -s tables` makes this page.

| what ended the block or the handler | {kinds} |
| --- | {line} |
{rows}

- **FIN**: an end of stream. **RST**: a reset, `BrokenResourceError` in Trio,
  `ECONNRESET` elsewhere. **close_notify**: TLS's own end, without which a TLS peer knows
  that the stream was cut. **end**: the only thing that a memory stream can tell.
  **-**: it cannot happen.
- A return ends the stream in stages: our end, then up to `linger` seconds for the peer's
  end, then the close. In a cancelled scope the seconds are skipped: our end is sent as
  far as the kernel takes it at once.
- A reset drops the bytes that the kernel has not delivered, also those that `send_all`
  has accepted: of 3.9 MB a slow peer got 113 KB. A handler that has said its last word
  ends with `await stream.send_eof()`. After that no exception and no cancellation resets
  the stream.
- Linux cannot abort a Unix stream: the peer gets an end, or `ECONNRESET` if we had not
  read all that it sent. A protocol on Unix sockets has to mark its own end, if a cut must
  not look like one.
- `pipe` and `relay` leave the streams to their owners. Only a reset of one side of a
  `relay` resets the other side as well.
- `aclose()` that is itself cancelled, and `trio.aclose_forcefully`, close at once, as
  they do with Trio's own streams.
- HTTP connections: an answer that is cut is reset, because to HTTP/1.0 the end of the
  connection may be that of the answer. A connection whose app was cancelled before its
  answer had begun is only closed.

[^group]: Trio raises a group with both if one task of a nursery fails while others are
    cancelled, for example if a handler with a nursery fails when a grace is over.
"""


class Mark(NamedTuple):
    """One id that one test is marked with."""

    id: str
    path: Path
    test: str

    @property
    def name(self) -> str:
        """The test, named within its folder."""
        return f"{self.path.stem}::{self.test}"

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.name}"


def find_marks(root: Path = ROOT) -> list[Mark]:
    """Return the marks of all tests, in the order of files and lines."""
    paths = sorted((root / "tests").rglob("test_*.py"))
    return [mark for path in paths for mark in _marks_of(path)]


def _marks_of(path: Path) -> Iterator[Mark]:
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.ClassDef):
            for method in statement.body:
                yield from _marks_on(method, path, f"{statement.name}::")
        yield from _marks_on(statement, path, "")


def _marks_on(statement: ast.stmt, path: Path, prefix: str) -> Iterator[Mark]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        for decorator in statement.decorator_list:
            if ast.unparse(decorator).startswith("pytest.mark.ids("):
                assert isinstance(decorator, ast.Call)
                for argument in decorator.args:
                    yield Mark(
                        ast.literal_eval(argument), path, prefix + statement.name
                    )


def conformance_page(marks: Iterable[Mark]) -> str:
    """Return the text of docs/topics/conformance.md."""
    marks = [*marks]
    ours = [mark for mark in marks if mark.path.parent == Path(__file__).parent]
    rows = [
        _row(
            *_cells(row_id, row), _code(mark.name for mark in ours if mark.id == row_id)
        )
        for row_id, row in REQUIREMENTS.items()
    ]
    websocket = [
        _row(*_cells(row_id, row), _code(map(str, _of_row(row_id, marks))))
        for row_id, row in WEBSOCKET.items()
    ]
    faults = [
        _row(
            row_id,
            row.given,
            row.right,
            _code(str(mark) for mark in marks if mark.id == row_id),
        )
        for row_id, row in FAULTS.items()
    ]
    return _CONFORMANCE_PAGE.format(
        roles=", ".join(f"{letter} {role}" for letter, role in ROLES.items()),
        rows="\n".join(rows),
        websocket="\n".join(websocket),
        faults="\n".join(faults),
    )


def node_page(marks: Iterable[Mark]) -> str:
    """Return the text of docs/topics/node.md."""
    marks = [*marks]
    rows = [
        _row(
            row_id,
            case.given,
            case.ours,
            case.node or "the same",
            case.why_untested
            or _code(str(mark) for mark in marks if mark.id == row_id),
        )
        for row_id, case in CASES.items()
    ]
    return _NODE_PAGE.format(rows="\n".join(rows))


def ends_page() -> str:
    """Return the text of docs/topics/ends.md."""
    return _ENDS_PAGE.format(
        kinds=" | ".join(KINDS),
        line=" | ".join("---" for _ in KINDS),
        rows="\n".join(_row(row.text, *row.seen) for row in ENDINGS.values()),
    )


def _cells(row_id: str, row: Requirement) -> tuple[str, ...]:
    return row_id, row.where, row.role, row.level, row.clause


def _of_row(row_id: str, marks: Iterable[Mark]) -> Iterator[Mark]:
    return (mark for mark in marks if mark.id == row_id)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Write the pages."""
    marks = find_marks()
    CONFORMANCE.parent.mkdir(exist_ok=True)
    CONFORMANCE.write_text(conformance_page(marks))
    NODE.write_text(node_page(marks))
    ENDS.write_text(ends_page())


if __name__ == "__main__":
    main()
