# Break one definition of a package: find it by name, change its syntax tree.  The tree,
# and not the text, so that a mutant fits however the source is formatted or commented;
# and a name, not a file, so that a definition can move without a change to its mutant.
from __future__ import annotations

import ast
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# An expression can be deleted from these: from their elements, arguments or operands.
_SEQUENCES = (ast.BoolOp, ast.Call, ast.List, ast.Set, ast.Tuple)


class Mutant(NamedTuple):
    """One change within one definition, which breaks a rule.

    ``...`` in ``old`` stands for any expression, and as the whole body of a statement
    for any statements; ``...`` in ``new`` stands for what these matched, in order.

    Attributes:
        definition: The function, class, or constant of a module or class: as many of
            the last parts of its qualified name as make it unique in the package.
        old: One expression or one statement, which occurs there once.
        new: What to write instead: an expression for an expression, any statements for
            a statement. Empty deletes: a statement becomes ``pass``, an expression is
            taken out of its tuple, list, set, call or ``and`` and ``or``.
    """

    definition: str
    old: str
    new: str = ""


def read_sources(package: Path) -> dict[Path, str]:
    """Return the sources of a package by their paths, which begin with its name."""
    paths = sorted(package.rglob("*.py"))
    return {path.relative_to(package.parent): path.read_text() for path in paths}


def break_package(sources: Mapping[Path, str], mutant: Mutant) -> tuple[Path, str]:
    """Return the path of the module that the mutant breaks, and its broken source.

    Raises:
        ValueError: The definition is not there exactly once, or the old code does not
            occur in it exactly once, or it cannot be replaced in this way.
    """
    found = [*_find_definitions(sources, mutant.definition)]
    if len(found) != 1:
        names = ", ".join(name for name, *_ in found) or "none"
        raise ValueError(f"not one definition of {mutant.definition}: {names}")
    ((name, path, tree, definition),) = found
    breaker = _Breaker(mutant)
    # Not visit(), which could replace the definition itself.
    breaker.generic_visit(definition)
    if breaker.count != 1:
        raise ValueError(f"{breaker.count} times in {name}: {mutant.old}")
    return path, ast.unparse(tree)


def _find_definitions(
    sources: Mapping[Path, str], wanted: str
) -> Iterator[tuple[str, Path, ast.Module, ast.AST]]:
    for path, source in sources.items():
        # To parse every module for every mutant would be slow.
        if wanted.rpartition(".")[2] in source:
            tree = ast.parse(source)
            module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
            for name, node in _definitions_in(tree, module):
                if f".{name}".endswith(f".{wanted}"):
                    yield name, path, tree, node


def _definitions_in(parent: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}.{node.name}"
            yield name, node
            yield from _definitions_in(node, name)
        elif isinstance(parent, ast.Module | ast.ClassDef):
            targets = [getattr(node, "target", None), *getattr(node, "targets", ())]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield f"{prefix}.{target.id}", node


class _Breaker(ast.NodeTransformer):
    """Replaces every occurrence of the old code, and counts them."""

    def __init__(self, mutant: Mutant) -> None:
        self.count = 0
        self._mutant = mutant
        (self._old,) = ast.parse(mutant.old).body
        self._new = ast.parse(mutant.new).body
        self._parent: ast.AST | None = None

    def generic_visit(self, node: ast.AST) -> ast.AST:
        outer, self._parent = self._parent, node
        super().generic_visit(node)
        self._parent = outer
        return node

    def visit(self, node: ast.AST) -> Any:
        old: ast.AST = self._old
        if isinstance(old, ast.Expr) and not isinstance(node, ast.Expr):
            old = old.value
        matched: list[Any] = []
        if not _matches(old, node, matched):
            return self.generic_visit(node)
        self.count += 1
        filler = _Filler(matched)
        new = [filler.visit(statement) for statement in deepcopy(self._new)]
        if isinstance(node, ast.stmt):
            return new or ast.Pass()
        match new:
            case [ast.Expr(value)]:
                return value
            case [] if isinstance(self._parent, _SEQUENCES):
                return None
        raise ValueError(f"cannot replace an expression by {self._mutant.new!r}")


class _Filler(ast.NodeTransformer):
    """Puts what ``...`` matched where ``...`` is in the new code."""

    def __init__(self, matched: list[Any]) -> None:
        self._matched = iter(matched)

    def visit(self, node: ast.AST) -> Any:
        if not _is_wildcard(node):
            return self.generic_visit(node)
        matched = next(self._matched)
        if isinstance(node, ast.Expr) and isinstance(matched, ast.expr):
            return ast.Expr(matched)
        return matched


def _matches(old: Any, node: Any, matched: list[Any]) -> bool:
    # Whether two trees are equal, without regard to positions.
    if isinstance(old, list):
        if len(old) == 1 and isinstance(old[0], ast.Expr) and _is_wildcard(old[0]):
            matched.append(node)
            return True
        return (
            isinstance(node, list)
            and len(old) == len(node)
            and all(map(_matches, old, node, [matched] * len(old)))
        )
    if _is_wildcard(old) and isinstance(node, ast.expr):
        matched.append(node)
        return True
    if isinstance(old, ast.AST):
        return type(old) is type(node) and all(
            _matches(getattr(old, field, None), getattr(node, field, None), matched)
            for field in old._fields
        )
    # 1 equals True and 1.0, which are other code.
    return type(old) is type(node) and old == node


def _is_wildcard(node: object) -> bool:
    if isinstance(node, ast.Expr):
        node = node.value
    return isinstance(node, ast.Constant) and node.value is Ellipsis
