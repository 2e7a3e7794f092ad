"""The values of options, and command lines that are wrong."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

import pytest

from trio_upgrade import Limits, __main__ as program
from trio_upgrade._command.main import main
from trio_upgrade._command.values import (
    Field,
    find_secrets,
    parse_body,
    parse_count,
    parse_delay,
    parse_descriptor,
    parse_field_file,
    parse_fields,
    parse_limit,
    parse_path,
    parse_port,
    parse_ports,
    parse_seconds,
    parse_text,
    parse_users,
)

from .running import run

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_text_from_a_file_or_the_environment(tmp_path, monkeypatch) -> None:
    """A word may name a file or a variable instead of a secret."""
    (tmp_path / "url").write_text("http://u:p@host\n")
    monkeypatch.setenv("THE_URL", "http://other ")

    assert parse_text("http://plain") == "http://plain"
    assert parse_text(f"@{tmp_path}/url") == "http://u:p@host"
    assert parse_text("env:THE_URL") == "http://other"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("env:NOT_THERE", "the environment has no variable NOT_THERE"),
        ("@/not/there", "cannot read /not/there: No such file or directory"),
    ],
)
def test_text_that_is_not_there(word: str, message: str) -> None:
    """A file or variable that is missing is named."""
    with pytest.raises(ArgumentTypeError, match=message):
        parse_text(word)


def test_file_that_is_not_text(tmp_path) -> None:
    """A file of other bytes is an error, and they are not shown."""
    (tmp_path / "key").write_bytes(b"secret\xff")
    with pytest.raises(ArgumentTypeError, match="it is not UTF-8"):
        parse_text(f"@{tmp_path}/key")


def test_fields(tmp_path) -> None:
    """Fields are lines; those of a file are secret; comments and blanks are left out."""
    (tmp_path / "fields").write_text("# mine\n\nX-A:b\nAuthorization: Bearer c:d\n")
    found = [Field("X-A", "b", True), Field("Authorization", "Bearer c:d", True)]

    assert parse_fields("X-A: b") == [Field("X-A", "b", False)]
    assert parse_fields(f"@{tmp_path}/fields") == found
    assert parse_field_file(str(tmp_path / "fields")) == found
    # Neither a line without a name, nor one whose "name" is a part of a token.
    for word in ("Authorization Bearer secret", "Bearer secret:more", ": secret"):
        with pytest.raises(ArgumentTypeError, match="a field is written as") as caught:
            parse_fields(word)
        assert "secret" not in str(caught.value)


def test_users(tmp_path, monkeypatch) -> None:
    """Users are lines; empty ones are left out, and what comes from a file is secret."""
    (tmp_path / "users").write_text("\nada:hunter2\n  \nbob:a:b \n")
    monkeypatch.setenv("THE_USERS", "ada:hunter2\nbob:a:b")

    for word in (f"@{tmp_path}/users", "env:THE_USERS"):
        assert parse_users(word) == ["ada:hunter2", "bob:a:b"]
        assert find_secrets(parse_users(word)) == ["ada:hunter2", "bob:a:b"]
    assert parse_users("ada:hunter2") == ["ada:hunter2"]


def test_wrong_users(tmp_path, monkeypatch) -> None:
    """A line that is no user is named by its file and its number, and is not shown."""
    (tmp_path / "users").write_text("\nada:hunter2\n# secret\n")
    monkeypatch.setenv("THE_USERS", "secret")
    text = "a line is written as user:password, and there are no comments"
    with pytest.raises(ArgumentTypeError) as caught:
        parse_users(f"@{tmp_path}/users")
    assert str(caught.value) == f"{tmp_path}/users, line 3: {text}"
    with pytest.raises(ArgumentTypeError) as caught:
        parse_users("env:THE_USERS")
    assert str(caught.value) == f"env:THE_USERS, line 1: {text}"
    with pytest.raises(ArgumentTypeError, match="No such file"):
        parse_users("@/not/there")


def test_body(tmp_path) -> None:
    """A body is text, or the bytes of a file."""
    (tmp_path / "body").write_bytes(b"\xff\n")

    assert parse_body("ä") == "ä".encode()
    assert parse_body(f"@{tmp_path}/body") == b"\xff\n"
    with pytest.raises(ArgumentTypeError, match="No such file"):
        parse_body("@/not/there")


def test_numbers() -> None:
    """Ports, counts, descriptors and seconds."""
    assert parse_port("0") == 0
    assert parse_ports("22") == range(22, 23)
    assert parse_ports("1-10") == range(1, 11)
    assert parse_count("3") == 3
    assert parse_descriptor("3") == 3
    assert parse_seconds("none") is None
    assert parse_seconds("0.5") == parse_delay("0.5") == 0.5


@pytest.mark.parametrize(
    ("parse", "word"),
    [
        (parse_port, "65536"),
        (parse_port, "http"),
        (parse_ports, "1-x"),
        (parse_ports, "3-1"),
        (parse_count, "0"),
        (parse_count, "-1"),
        (parse_descriptor, "x"),
        (parse_descriptor, "2147483648"),
        (parse_path, ""),
        (parse_seconds, "-1"),
        (parse_seconds, "inf"),
        (parse_seconds, "nan"),
        (parse_seconds, "soon"),
        (parse_delay, "none"),
    ],
)
def test_wrong_numbers(parse, word: str) -> None:
    """Other words are refused."""
    with pytest.raises(ArgumentTypeError):
        parse(word)


def test_limits() -> None:
    """A limit is a number, or none where the limit can be disabled."""
    assert parse_limit("connections=5") == ("connections", 5)
    assert parse_limit("linger=0.5") == ("linger", 0.5)
    assert parse_limit("linger=none") == ("linger", None)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("connections=", "a number is wanted"),
        ("connections", "a number is wanted"),
        ("connections=-1", "must not be negative"),
        ("connections=1.5", "must be an int"),
        ("header_bytes=none", "must be a number"),
    ],
)
def test_wrong_limits(word: str, message: str) -> None:
    """A limit that cannot have the value is refused as the library does."""
    with pytest.raises(ArgumentTypeError, match=message):
        parse_limit(word)


def test_unknown_limit() -> None:
    """An unknown limit ends the program with 2, and one line that has all names."""
    result = run("echo", "--limit", "foo=1")

    assert result.status == 2
    assert result.stderr.count("\n") == 1
    assert "there is no limit 'foo'" in result.stderr
    for name in Limits.__annotations__:
        assert name in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nix"], "invalid choice: 'nix'"),
        (["connect", "http://h"], "required: PROTOCOL"),
        (["echo", "--hots=Bearer secret"], "there is no option --hots"),
        (["echo", "-Hsecret: secret"], "there is no option -H"),
        (["echo", "secret"], "too many arguments, or options between them"),
        (["echo", "secret"], "(see trio-upgrade echo --help)"),
        (["echo", "-v=secret"], "argument -v/--verbose: it takes no value"),
        (["http://u:secret@host"], "invalid choice: 'http://***@host'"),
        (["echo", "--port", "1", "--unix", "x"], "only one of these"),
        (["echo", "--unix", "x", "--tls", "a", "b"], "--tls is for TCP"),
        (["echo", "--tls", "a", "b"], "cannot read a: No such file or directory"),
        (["echo", "--tls", __file__, __file__], "are not a certificate and its key"),
        (["echo", "--unix", ""], "argument --unix: a path is wanted"),
        (["echo", "--trusted", "nowhere"], "--trusted: 'nowhere' is neither"),
        (["proxy"], "name one UPSTREAM"),
        (["proxy", "--forward", "http://h"], "name one UPSTREAM"),
        (["proxy", "http://u:secret@h/path"], "without a path"),
        (["proxy", "http://h/path"], "see docs/how-to/upstreams.md"),
        (["proxy", "secret"], "UPSTREAM is http://host:port"),
        (["proxy", "http://h", "--allow", "10.0.0.0/8"], "go with --forward"),
        (["proxy", "http://h", "--upgrade", "h2c"], "is never passed on"),
        (
            ["proxy", "http://h", "--upgrade", "bad token"],
            "argument --upgrade: a proto",
        ),
        (["proxy", "http://h", "--upgrade", "chat/"], "NAME or NAME/VERSION"),
        (["proxy", "--forward", "--users", "secret"], "written as user:password"),
        (["proxy", "--forward", "--users", "secret"], "read a file write @FILE"),
        (
            ["proxy", "--forward", "--allow", "127.0.0.1/8"],
            "--allow: write 127.0.0.0/8",
        ),
        (["proxy", "--forward", "--allow", "nowhere"], "a network is written as"),
        (["echo", "--health", "health"], "--health: a path begins with /"),
        (["echo", "--health", "/a b"], "--health: a path begins with /"),
        (["echo", "--health", "/a?b"], "--health: a path begins with /"),
        (["tunnel", "host"], "the target is host:port"),
        (["tunnel", "::1:22"], "the target is host:port"),
        (["tunnel", "host/path:22", "--direct"], "the target is host:port"),
        (["tunnel", "u:secret@host", "22", "--direct"], "the target is host:port"),
        (["tunnel", "two hosts", "22", "--direct"], "the target is host:port"),
        (["connect", "http://h", "echo", "-H", "X Y: secret"], "a field is written as"),
        (["connect", "-v", "http://h", "bad token"], "not a protocol name"),
        (["websocket", "-v", "http://h", "--subprotocol", "a b"], "subprotocol"),
        (["tunnel", "http://h/"], "an endpoint needs --protocol"),
        (["tunnel", "h:1", "--protocol", "x"], "for the URL of an endpoint"),
        (["tunnel", "h:1", "--carriers"], "for the URL of an endpoint"),
        (["tunnel", "h:1", "-H", "A: secret"], "fields are for an endpoint"),
        (["tunnel", "h:0", "--direct"], "must be from 1 to 65535"),
        (["tunnel", "h:1", "--via", "http://u:secret@[h"], "host"),
        (["connect", "ftp://u:secret@h", "echo"], "cannot dial a URL of scheme"),
        (
            ["connect", "http://h", "echo", "--ca-file", "/not/there"],
            "cannot read /not",
        ),
        (["connect", "http://h", "echo", "--ca-file", __file__], "has no certificate"),
        (["websocket", "ftp://h"], "cannot dial a URL of scheme"),
        (["serve", "app"], "'app' is not MODULE:APP"),
        (["serve", "not_there_at_all:app"], "there is no module 'not_there_at_all'"),
        (["serve", "json:not_there"], "the module 'json' has no 'not_there'"),
        (["serve", "sys:path"], "sys:path cannot be called"),
        (["serve", ".relative:app"], "is not MODULE:APP"),
        (["serve", "os:getcwd", "--workers", "2"], "the app must be an async function"),
        (["serve", "os:getcwd", "--asgi"], "this is no application of ASGI"),
        (["serve", "os:getcwd"], "the app must be an async function"),
        (["echo", "--fd", "99"], "descriptor 99: Bad file descriptor"),
        (["echo", "--fd", "0"], "descriptor 0: Socket operation on non-socket"),
    ],
)
def test_wrong_command_line(words: list[str], message: str) -> None:
    """A wrong command line ends with 2 and one line, without a word that is a secret."""
    result = run(*words)

    assert result.status == 2, result.stderr
    assert result.stderr.startswith("trio-upgrade")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == b""
    assert "secret" not in result.stderr


@pytest.mark.parametrize(
    "command", ["", "serve", "echo", "connect", "tunnel", "proxy", "websocket"]
)
def test_help(command: str, capsys, monkeypatch) -> None:
    """Each help names its options and has examples, within 90 columns."""
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit) as caught:
        main([*command.split(), "--help"])
    shown = capsys.readouterr().out

    assert caught.value.code == 0
    assert max(map(len, shown.splitlines())) <= 90
    assert shown.count("trio-upgrade ") > 2
    for option in OPTIONS.get(command, ()):
        assert f" {option} " in shown


PLACE = ("--host", "--port", "--unix", "--fd", "--tls")
SERVING = (
    "--workers",
    "--grace",
    "--delay",
    "--health",
    "--trusted",
    "--limit",
    "--access-log",
)
DIALLING = ("--header", "--via", "--ca-file", "--client-cert", "--timeout", "--direct")
OPTIONS = {
    "serve": ("MODULE:APP", "--asgi", *PLACE, *SERVING),
    "echo": (*PLACE, *SERVING),
    "connect": ("PROTOCOL", "--method", "--body", "--keep-open", *DIALLING),
    "tunnel": ("TARGET", "--listen", "--protocol", "--carriers", *DIALLING),
    "proxy": ("UPSTREAM", "--forward", "--users", "--allow", *PLACE, *SERVING),
    "websocket": ("URL", "--subprotocol", "--origin", "--wait", *DIALLING),
}


def test_version() -> None:
    """--version ends with 0."""
    with pytest.raises(SystemExit) as caught:
        run("--version")
    assert caught.value.code == 0


@pytest.fixture
def _signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
def test_interrupted_while_it_imports(monkeypatch) -> None:
    """Ctrl-C before the command is known ends with 130, too, and without a traceback."""

    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "trio_upgrade._command.main":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "trio_upgrade._command.main")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])

    assert program.main([]) == 130
    # From now on signals cannot change the status; see test_signal_at_the_end().
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


@pytest.mark.usefixtures("_signals")
def test_status_of_the_program() -> None:
    """The program has the status of its command."""
    assert program.main(["echo", "--port", "x"]) == 2
