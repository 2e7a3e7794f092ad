# The application that MODULE:APP names.
from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import TYPE_CHECKING, Any

from .errors import UsageFailed

if TYPE_CHECKING:
    from collections.abc import Callable


def load_application(name: str) -> Callable[..., object]:
    """Import a module, also from the working directory, and return its application.

    Args:
        name: ``MODULE:APP``; APP may have dots.

    Raises:
        UsageFailed: There is no such module or attribute, or it cannot be called.
        Exception: What the module raises when it is imported.
    """
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path) or module_name.startswith("."):
        raise UsageFailed(f"{name!r} is not MODULE:APP, as in main:app")
    # Of a console script the first entry is the folder of the script.
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # Not one that the user's module imports: that is an error in it.
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        raise UsageFailed(
            f"there is no module {exc.name!r} in {folder}, nor is one installed"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageFailed(f"the module {module_name!r} has no {path!r}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageFailed(f"{name} cannot be called: it is no application")
    function: Callable[..., object] = found
    return function


def looks_like_asgi(app: Callable[..., object]) -> bool:
    """Return whether an application takes the three arguments of ASGI."""
    try:
        parameters = [*inspect.signature(app).parameters]
    except (TypeError, ValueError):
        # Some that are written in C have none.
        return False
    return parameters[:3] == ["scope", "receive", "send"]


def takes_asgi(app: Callable[..., object]) -> bool:
    """Return whether an application can be called with three arguments, as by ASGI."""
    try:
        signature = inspect.signature(app)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(None, None, None)
    except TypeError:
        return False
    return True
