# Objects that never change, and what is in an exception group.
from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, NoReturn, TypeVar, cast

T = TypeVar("T")


def public(thing: T) -> T:
    """Let a class or function say that it is of ``trio_upgrade``, where users find it.

    So tracebacks, ``repr`` and ``help`` show no private module; Trio does the same. By a
    decorator, and not when ``__init__`` hands a name out: an exception may be raised
    before its name was ever asked for.
    """
    cast("Any", thing).__module__ = "trio_upgrade"
    return thing


class Frozen:
    """An object that stays as its ``__init__`` makes it, past ``__setattr__``."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


class Record(Frozen):
    """One that is compared, hashed and shown by its attributes."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({', '.join(shown)})"


def split_errors(
    exc: BaseException,
) -> tuple[Exception | None, BaseException | None]:
    """Split what left a scope into errors and the rest.

    ``except Exception`` is not enough: a group of a ValueError and a Cancelled passes
    it by and takes the server along.

    Returns:
        The errors and what must go on its way (Cancelled, KeyboardInterrupt,
        SystemExit), each None where there is none of it.
    """
    if isinstance(exc, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", exc).split(Exception)
    if isinstance(exc, Exception):
        return exc, None
    return None, exc


def find_leaves(exc: BaseException) -> list[BaseException]:
    """Return the exceptions in a group of groups, or the one given."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [leaf for inner in group.exceptions for leaf in find_leaves(inner)]
    return [exc]
