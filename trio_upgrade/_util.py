# Helpers for every package: the public path of names, immutable objects, exception
# groups.
from __future__ import annotations

from collections.abc import Coroutine, Iterable
from dataclasses import FrozenInstanceError
from types import FunctionType, MethodType
from typing import Any, NoReturn, TypeVar, cast, dataclass_transform

T = TypeVar("T")


def public(thing: T) -> T:
    """Set ``__module__`` of a class or function to ``trio_upgrade``, where users find it.

    Then tracebacks, ``repr`` and ``help`` show no private module, as in Trio. This is a
    decorator, because ``__init__`` imports each name at its first use, and an exception
    may be raised before that.
    """
    cast("Any", thing).__module__ = "trio_upgrade"
    return thing


@dataclass_transform(frozen_default=True)
class Frozen:
    """An immutable object. Its ``__init__`` sets attributes past ``__setattr__``."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")


class Record(Frozen):
    """A frozen object that is compared, hashed and shown by its attributes."""

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({', '.join(shown)})"


def name_kind(given: object) -> str:
    """Return the kind of an object that was given by mistake, for a TypeError.

    A function that was not called, a coroutine that should not have been made and a class
    instead of its instance are named as such: their types alone would say little.
    """
    if given is None:
        return "None"
    name: str = getattr(given, "__name__", "")
    if isinstance(given, type):
        return f"the class {name}"
    if isinstance(given, Coroutine):
        return "a coroutine: give the function itself, or await the call"
    if isinstance(given, FunctionType | MethodType):
        return f"the function {name}"
    return type(given).__name__


def check_seconds(argument: str, seconds: object) -> None:
    """Check a time in seconds, which None disables.

    Raises:
        TypeError: It is neither a number nor None.
        ValueError: It is negative.
    """
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{argument} must be seconds or None, not {name_kind(seconds)}")
    if not seconds >= 0:
        raise ValueError(f"{argument} must not be negative, not {seconds!r}")


def suggest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about a wrong name: the name that was meant, if any."""
    # Few programs come here.
    from difflib import get_close_matches

    near = get_close_matches(name, [*names], n=1)
    return f". Did you mean {near[0]!r}?" if near else ""


def split_errors(
    exc: BaseException,
) -> tuple[Exception | None, BaseException | None]:
    """Split an exception that left a scope into errors and the rest.

    ``except Exception`` is not enough: it does not catch a group of a ValueError and a
    Cancelled, which would then end the whole server.

    Returns:
        The errors, and the exceptions that must propagate (Cancelled, KeyboardInterrupt,
        SystemExit). Each is None if there are none.
    """
    if isinstance(exc, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", exc).split(Exception)
    if isinstance(exc, Exception):
        return exc, None
    return None, exc


def find_leaves(exc: BaseException) -> list[BaseException]:
    """Return all exceptions inside nested groups; a single exception as a list of one."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return [leaf for inner in group.exceptions for leaf in find_leaves(inner)]
    return [exc]
