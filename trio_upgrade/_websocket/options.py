# The options of dialling, as functions of this package take them: by name, and passed on
# to open_upgrade().  Their table of defaults is its signature.
from __future__ import annotations

from difflib import get_close_matches
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import DialOptions, open_upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


def public(thing: T) -> T:
    """Set ``__module__`` to the module where users find a function or a class."""
    cast("Any", thing).__module__ = "trio_upgrade.websocket"
    return thing


def declare_dial_options(function: T) -> T:
    """Give a function a signature with the options instead of ``**options``."""
    shared = signature(open_upgrade).parameters
    *own, _ = signature(cast("Callable[..., object]", function)).parameters.values()
    options: list[Parameter] = [shared[name] for name in DialOptions.__annotations__]
    returned = cast("Any", function).__annotations__["return"]
    cast("Any", function).__signature__ = Signature(
        [*own, *options], return_annotation=returned
    )
    return function


def check_dial_options(
    function: Callable[..., object], options: Mapping[str, object]
) -> None:
    """Check the names of the options that a function was called with.

    Raises:
        TypeError: There is no option of such a name; worded as Python's own error.
    """
    for name in options:
        if name not in DialOptions.__annotations__:
            text = (
                f"{function.__qualname__}() got an unexpected keyword argument {name!r}"
            )
            near = get_close_matches(name, [*signature(function).parameters], n=1)
            raise TypeError(text + (f". Did you mean {near[0]!r}?" if near else ""))
