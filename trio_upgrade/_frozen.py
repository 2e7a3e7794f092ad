# What dataclass(frozen=True) would write anew for each class, and compile: up to 2 ms of
# an import each.
from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import NoReturn


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
