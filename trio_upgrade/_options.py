# Keyword options that several public functions share (PEP 692).  A TypedDict documents
# each option once; one private callable has the defaults, because it is the one that uses
# the options.  `**options` alone would hide both from inspect.signature(), help() and the
# docs, and would accept any name: SharedOptions gives back the signature and the check.
from __future__ import annotations

from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

from ._util import suggest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FunctionT = TypeVar("FunctionT")


@final
class SharedOptions:
    """The options of one TypedDict, for the functions that take them as ``**options``.

    Args:
        documented: The TypedDict, its annotations written as strings.
        user: What gets the options; its keyword defaults are the table of defaults.
    """

    __slots__ = ("_defaults", "_parameters")

    def __init__(self, documented: type, user: Callable[..., object]) -> None:
        self._defaults: Mapping[str, object] = cast("Any", user).__kwdefaults__
        # Made once and shared by the signatures: each costs time at the import.
        self._parameters = [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=self._defaults[name],
                # As it was written: TypedDict has made a ForwardRef of it.
                annotation=hint.__forward_arg__,
            )
            for name, hint in documented.__annotations__.items()
        ]

    def declare(self, function: FunctionT) -> FunctionT:
        """Give a function a signature that has the options instead of ``**options``."""
        written = signature(cast("Callable[..., object]", function))
        *own, _ = written.parameters.values()
        cast("Any", function).__signature__ = Signature(
            [*own, *self._parameters], return_annotation=written.return_annotation
        )
        return function

    def complete(self, given: Mapping[str, object]) -> dict[str, object]:
        """Return all options: those given, and the defaults of the others."""
        return {**self._defaults, **given}

    def check(
        self, function: Callable[..., object], given: Mapping[str, object]
    ) -> None:
        """Check the names of the options that a function was called with.

        Call it first, so that the error leaves everything as it was.

        Raises:
            TypeError: There is no option of such a name; worded as Python's own error.
        """
        for name in given:
            if name not in self._defaults:
                raise TypeError(_describe_unknown(function, name))


def _name(function: Callable[..., object]) -> str:
    # The class for a constructor, and "Class.method" for a method.
    return function.__qualname__.removesuffix(".__init__")


def _describe_unknown(function: Callable[..., object], name: str) -> str:
    names = [
        parameter.name
        for parameter in signature(function).parameters.values()
        if parameter.kind is not Parameter.VAR_POSITIONAL
    ]
    text = f"{_name(function)}() got an unexpected keyword argument {name!r}"
    return text + suggest(name, names)
