"""Docstrings as they are written here, for autodoc: Google style, types, links.

Three things that Sphinx does not do by itself: names that only type checkers import are
made known, so that signatures can be shown; our own types are shown by the names that
users import, without private parts; and names of Trio, Python and websockets become links
without an inventory, so that the site is built without a network.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
from contextlib import nullcontext, suppress
from pathlib import Path
from pkgutil import resolve_name, walk_packages
from typing import TYPE_CHECKING, Any, TypeAlias

from docutils import nodes
from sphinx.ext.napoleon import Config
from sphinx.ext.napoleon.docstring import GoogleDocstring

import trio_upgrade

if TYPE_CHECKING:
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

# Attributes become objects of their own, so that each limit and option can be linked.
_NAPOLEON = Config(napoleon_use_ivar=False, napoleon_use_rtype=False)

_PUBLIC = (
    "trio_upgrade",
    "trio_upgrade.asgi",
    "trio_upgrade.carrier",
    "trio_upgrade.proxy",
    "trio_upgrade.testing",
    "trio_upgrade.websocket",
)
# What signatures show instead of private classes, type variables and one nameless object.
_SHOWN = {
    r"~?trio_upgrade\._server\.response\.Received": "~trio_upgrade.ClientResponse",
    r"~?trio_upgrade\._client\.pool_response\.PooledBodyStream": (
        "~collections.abc.AsyncIterator[bytes]"
    ),
    r"~?trio_upgrade\._streams\.socket_listener\.DirectSocketListener": (
        "~trio.SocketListener"
    ),
    r"~?trio_upgrade\._streams\.scope\.StreamT": "~trio.abc.Stream",
    r"~?trio_upgrade\._room\.outlets\.WebSocket": (
        "~websockets.trio.connection.Connection"
    ),
    r"<trio\S* object at 0x\w+>": "trio.TASK_STATUS_IGNORED",
}
_TRIO = "https://trio.readthedocs.io/en/stable/reference-{}.html#{}"
# What of Trio is on its page about tasks; the rest is on the one about input and output.
_TRIO_CORE = re.compile(
    r"trio\.(\w+Error|Cancelled|CancelScope|Nursery|TaskStatus|TASK_STATUS_IGNORED|"
    r"fail_after|move_on_after|open_nursery|run|open_memory_channel|Event)$"
)
_WEBSOCKETS = {
    "websockets.exceptions": "exceptions",
    "websockets.trio.server": "trio/server",
    "websockets.trio.client": "trio/client",
    "websockets.trio.connection": "trio/common",
}


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers."""
    _import_for_checkers()
    _name_aliases()
    _evaluate_aliases()
    _open_doors()
    app.connect("autodoc-process-docstring", _process_docstring)
    app.connect("autodoc-process-signature", _process_signature)
    app.connect("autodoc-skip-member", _skip_member)
    app.connect("missing-reference", _link_elsewhere)
    return {"parallel_read_safe": True}


def _import_for_checkers() -> None:
    prefix = f"{trio_upgrade.__name__}."
    names = [module.name for module in walk_packages(trio_upgrade.__path__, prefix)]
    blocks = [
        (module, statement.body)
        for module in [*map(importlib.import_module, names)]
        for statement in ast.parse(Path(str(module.__file__)).read_text()).body
        if isinstance(statement, ast.If)
        and ast.unparse(statement.test) == "TYPE_CHECKING"
    ]
    # Twice, because a name may come from such a block of another module.
    for is_last in (False, True):
        for module, body in blocks:
            code = compile(ast.Module(body, []), str(module.__file__), "exec")
            with nullcontext() if is_last else suppress(ImportError):
                exec(code, vars(module))  # noqa: S102


def _evaluate_aliases() -> None:
    # An alias that is written as a string would be shown by its private name.
    for module in [*sys.modules.values()]:
        if getattr(module, "__name__", "").startswith("trio_upgrade."):
            for name, annotation in getattr(module, "__annotations__", {}).items():
                value = getattr(module, name, None)
                if annotation in ("TypeAlias", TypeAlias) and isinstance(value, str):
                    shown = eval(value, vars(module))  # noqa: S307
                    for user in [*sys.modules.values()]:
                        if vars(user).get(name) is value:
                            setattr(user, name, shown)


def _name_aliases() -> None:
    # A type alias would be shown by what it stands for, here the longest union.  In its
    # place each module gets a class of the same name, before a signature is read.
    for public in [*map(importlib.import_module, _PUBLIC)]:
        for name in public.__all__:
            alias = getattr(public, name)
            if not (inspect.isclass(alias) or inspect.isfunction(alias)):
                shown = type(name, (), {"__module__": public.__name__})
                for module in [*sys.modules.values()]:
                    if vars(module).get(name) is alias:
                        setattr(module, name, shown)


def _open_doors() -> None:
    # The annotations of a class are read with the names of the module that it says it is
    # from, which is the public one.
    for name, module in [*sys.modules.items()]:
        package, _, rest = name.partition("._")
        if package == "trio_upgrade" and rest:
            door = f"{package}.{rest.partition('.')[0]}"
            public = sys.modules[door if door in _PUBLIC else package]
            for inner, value in vars(module).items():
                vars(public).setdefault(inner, value)


def _process_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    # Not Napoleon's own handler: it takes "The peer: an address" in the docstring of a
    # property for a type and a description.
    what = "method" if what == "property" else what
    parsed = GoogleDocstring(lines, _NAPOLEON, app, what, name, thing, options)
    lines[:] = parsed.lines()


def _process_signature(
    _app: Sphinx,
    what: str,
    _name: str,
    thing: object,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None] | None:
    if what in ("class", "exception") and "Args:" not in (inspect.getdoc(thing) or ""):
        # Users get such objects from others.
        return "", None
    for written, shown in _SHOWN.items():
        signature = signature and re.sub(written, shown, signature)
        returns = returns and re.sub(written, shown, returns)
    return signature, returns


def _skip_member(
    _app: Sphinx, _what: str, _name: str, thing: object, _skip: bool, _options: object
) -> bool | None:
    # The fields of named tuples are described in the docstrings of the classes.
    return True if type(thing).__name__ == "_tuplegetter" else None


def _link_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Node | None:
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if node.get("py:module") != "trio_upgrade":
        # A name of the core in an add-on, whose docstrings name only the class.
        core = node.copy()
        core["py:module"], core["py:class"] = "trio_upgrade", None
        found = env.domains["py"].resolve_xref(
            env, node["refdoc"], app.builder, node["reftype"], target, core, text
        )
        if found is not None:
            return found
    try:
        thing = getattr(builtins, target, None) or resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return None
    package = target.partition(".")[0]
    # A method is on the page of its class.
    owner = getattr(thing, "__objclass__", thing)
    owner = owner.fget if isinstance(owner, property) else owner
    module = thing.__name__ if inspect.ismodule(thing) else owner.__module__
    if package == "trio":
        page = "core" if _TRIO_CORE.match(target) else "io"
        url = _TRIO.format(page, target)
    elif package == "websockets":
        page = _WEBSOCKETS[module]
        url = f"https://websockets.readthedocs.io/en/stable/reference/{page}.html#{target}"
    elif module == "builtins":
        url = f"https://docs.python.org/3/library/functions.html#{target}"
    elif package in sys.stdlib_module_names:
        url = f"https://docs.python.org/3/library/{module}.html#{target}"
    else:
        return None
    return nodes.reference("", "", text, internal=False, refuri=url)
