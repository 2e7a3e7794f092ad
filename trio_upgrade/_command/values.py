# The values of options, from the words of a command line.  No message here repeats a word
# that may be a secret, which is why none of these raises the ValueError that argparse
# would quote.
from __future__ import annotations

import math
import os
import re
from argparse import ArgumentTypeError
from ipaddress import ip_network
from typing import NamedTuple, cast

from .. import Limits

_HIGHEST_PORT = 65535
_NONE = "none"


# RFC 9110 §5.6.2.
_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# RFC 9112 §3.2.1, without its query.  Other characters are in no request.
_is_path = re.compile(r"/[!\"$->@-~]*").fullmatch
# The highest number that a descriptor can have: a C int.
_MOST_DESCRIPTOR = 2**31 - 1


class Secret(str):
    """Text from a file or from the environment, which is never shown."""

    __slots__ = ()


class Field(NamedTuple):
    """A field of a request.

    Attributes:
        name: Its name.
        value: Its value.
        is_secret: Whether it came from a file or from the environment.
    """

    name: str
    value: str
    is_secret: bool


def read_text(word: str) -> tuple[str, bool]:
    """Return what a word stands for, and whether it came from elsewhere.

    ``@FILE`` is the content of a file and ``env:NAME`` a variable of the environment, so
    that a secret is neither in the list of processes nor in the history of a shell.

    Raises:
        ArgumentTypeError: There is no such file or variable.
    """
    if word.startswith("@"):
        return _read_file(word[1:]).strip(), True
    if word.startswith("env:"):
        name = word.removeprefix("env:")
        if name not in os.environ:
            raise ArgumentTypeError(f"the environment has no variable {name}")
        return os.environ[name].strip(), True
    return word, False


def _read_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not UTF-8"
        raise ArgumentTypeError(f"cannot read {path}: {reason}") from None


def parse_text(word: str) -> str:
    """Return what a word stands for, a :class:`Secret` if it came from elsewhere."""
    text, is_secret = read_text(word)
    return Secret(text) if is_secret else text


def parse_body(word: str) -> bytes:
    """Return the content of a request: text, or that of a file.

    Raises:
        ArgumentTypeError: The file cannot be read.
    """
    if not word.startswith("@"):
        return word.encode()
    try:
        with open(word[1:], "rb") as file:
            return file.read()
    except OSError as exc:
        raise ArgumentTypeError(f"cannot read {word[1:]}: {exc.strerror}") from None


def parse_fields(word: str) -> list[Field]:
    """Return the fields that a word has, one for each line.

    Raises:
        ArgumentTypeError: A line is no field.
    """
    text, is_secret = read_text(word)
    fields: list[Field] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        # A "name" that is none may be the beginning of a token: it is not shown.
        if not colon or not _is_token(name.strip()):
            raise ArgumentTypeError('a field is written as "Name: value"')
        fields.append(Field(name.strip(), value.strip(), is_secret))
    return fields


def parse_field_file(path: str) -> list[Field]:
    """Return the fields of a file, one on each line."""
    return parse_fields(f"@{path}")


def parse_port(word: str) -> int:
    """Return a port to listen on, 0 for any free one."""
    if not (word.isascii() and word.isdigit() and int(word) <= _HIGHEST_PORT):
        raise ArgumentTypeError(f"a port is a number from 0 to {_HIGHEST_PORT}")
    return int(word)


def parse_ports(word: str) -> range:
    """Return a port, or ports as ``FIRST-LAST``."""
    first, _, last = word.partition("-")
    found = range(parse_port(first), parse_port(last or first) + 1)
    if not found:
        raise ArgumentTypeError("FIRST-LAST has to be in this order")
    return found


def parse_offer(word: str) -> str:
    """Return a protocol, with a version or without one, or ``*``."""
    name, slash, version = word.partition("/")
    if not _is_token(name) or (slash and not _is_token(version)):
        raise ArgumentTypeError("a protocol is NAME or NAME/VERSION, or * for any")
    return word


def parse_users(word: str) -> list[str]:
    """Return the users that a word has, each as ``user:password``.

    Raises:
        ArgumentTypeError: A line is none. It is not shown, but its place.
    """
    # Not stripped, so that the lines of a file have its numbers.
    is_file = word.startswith("@")
    text, is_secret = (_read_file(word[1:]), True) if is_file else read_text(word)
    users: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        user = line.strip()
        if user and ":" not in user:
            form = "a line is written as user:password"
            if not is_secret:
                raise ArgumentTypeError(f"{form}; to read a file write @FILE")
            place = f"{word.removeprefix('@')}, line {number}"
            raise ArgumentTypeError(f"{place}: {form}, and there are no comments")
        if user:
            users.append(Secret(user) if is_secret else user)
    return users


def parse_network(word: str) -> str:
    """Return a network, or an address.

    Raises:
        ArgumentTypeError: It is none, or its address has bits outside its prefix.
    """
    try:
        network = ip_network(word, strict=False)
    except ValueError:
        raise ArgumentTypeError("a network is written as 10.0.0.0/8") from None
    try:
        ip_network(word)
    except ValueError:
        raise ArgumentTypeError(f"write {network}, or one address alone") from None
    return word


def parse_health(word: str) -> str:
    """Return the path of health checks."""
    if not _is_path(word):
        raise ArgumentTypeError("a path begins with /, and has no blank, query or #")
    return word


def parse_count(word: str) -> int:
    """Return a number that is at least 1."""
    if not (word.isascii() and word.isdigit() and int(word)):
        raise ArgumentTypeError("it must be a number, at least 1")
    return int(word)


def parse_descriptor(word: str) -> int:
    """Return the number of a descriptor."""
    if not (word.isascii() and word.isdigit() and int(word) <= _MOST_DESCRIPTOR):
        raise ArgumentTypeError("it must be a number, as in --fd 3")
    return int(word)


def parse_path(word: str) -> str:
    """Return a path, which is not empty."""
    if not word:
        raise ArgumentTypeError("a path is wanted")
    return word


def parse_seconds(word: str) -> float | None:
    """Return seconds; None for ``none``."""
    if word == _NONE:
        return None
    seconds = _parse_number(word)
    if seconds is None or not 0 <= seconds < math.inf:
        raise ArgumentTypeError("seconds must be a number, or none for no limit")
    return seconds


def parse_delay(word: str) -> float:
    """Return seconds that have to be given."""
    seconds = parse_seconds(word)
    if seconds is None:
        raise ArgumentTypeError("seconds must be a number")
    return seconds


def parse_limit(word: str) -> tuple[str, float | None]:
    """Return the name and the value of a limit.

    Raises:
        ArgumentTypeError: There is no such limit, or it cannot have the value.
    """
    name, _, text = word.partition("=")
    if name not in Limits.__annotations__:
        known = ", ".join(Limits.__annotations__)
        raise ArgumentTypeError(f"there is no limit {name!r}; the limits are {known}")
    value = None if text == _NONE else _parse_number(text)
    if value is None and text != _NONE:
        raise ArgumentTypeError(f"a number is wanted, as in {name}=100, or none")
    try:
        Limits(**{name: value})  # type: ignore[arg-type]
    except (TypeError, ValueError) as exc:
        raise ArgumentTypeError(str(exc)) from None
    return name, value


def _parse_number(word: str) -> float | None:
    # An int where it is one: counts and bytes have to be.
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return None


def find_secrets(values: object) -> list[str]:
    """Return all texts from files and from the environment that arguments have.

    Args:
        values: The value of an argument, or those of all in a list or tuple.
    """
    if isinstance(values, Field):
        return [values.value] if values.is_secret else []
    if isinstance(values, Secret):
        return [values]
    if isinstance(values, list | tuple):
        found = cast("list[object]", values)
        return [secret for value in found for secret in find_secrets(value)]
    return []
