"""The blocks of the README and of the pages are run, each of them, or say why not."""

from __future__ import annotations

import ast
import inspect
import re
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from .blocks import ROOT, Block, compare, read_blocks, read_commands, run_python

if TYPE_CHECKING:
    from pathlib import Path

MODULES = (
    "trio_upgrade",
    "trio_upgrade.asgi",
    "trio_upgrade.carrier",
    "trio_upgrade.proxy",
    "trio_upgrade.testing",
    "trio_upgrade.websocket",
)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
INDEXES = sorted((ROOT / "docs").glob("*/index.md"))
# How many blocks of a page are not run; a new one is a decision.
NOT_RUN = {
    "README.md": 2,
    "docs/how-to/command.md": 1,
    "docs/how-to/containers.md": 2,
    "docs/how-to/forward-proxy.md": 1,
    "docs/how-to/ssh.md": 1,
    "docs/how-to/systemd.md": 1,
    "docs/tutorial/index.md": 2,
}


def blocks_of(path: Path) -> list[Block]:
    """Return the blocks of a page."""
    return [block for _, block in read_blocks(path.read_text())]


def test_exceptions_are_counted() -> None:
    """Each block that is not run says why in a comment, and these are counted."""
    found: Counter[str] = Counter()
    for path in PAGES:
        for block in blocks_of(path):
            if block.why_not:
                assert len(block.why_not.split()) > 1
                found[path.relative_to(ROOT).as_posix()] += 1

    assert dict(found) == NOT_RUN


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_is_found(path: Path) -> None:
    """No fence is missed: each has a language; shell blocks are bounded or not run."""
    fences = re.findall(r"^ *```(.*)$", path.read_text(), re.MULTILINE)
    blocks = blocks_of(path)

    assert len(fences) == 2 * len(blocks)
    for block in blocks:
        assert block.language
        # The commands of a page that is run begin with $, and show what they print.
        assert block.language != "sh" or block.why_not


@pytest.mark.parametrize("path", INDEXES, ids=lambda path: path.parent.name)
def test_index_links_each_page(path: Path) -> None:
    """Each page is in a list of its index with a line, and in a toctree that is hidden.

    A toctree alone has no links where the sources are read, as on GitHub.
    """
    text = path.read_text()
    listed = re.findall(r"^- \[[^]]+\]\(([\w-]+)\.(?:md|rst)\): \S", text, re.MULTILINE)
    trees = re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL)
    entries = [
        name for tree in trees for name in re.findall(r"^[\w-]+$", tree, re.MULTILINE)
    ]
    pages = {page.stem for page in path.parent.iterdir() if page.is_file()} - {"index"}

    assert listed == entries
    assert {*listed} == pages
    assert all(tree.startswith(":hidden:\n") for tree in trees)


def make_anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere_on_github() -> None:
    """Links between pages name files, and anchors that GitHub and the site both make."""
    for path in PAGES:
        for target, anchor in re.findall(
            r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", path.read_text()
        ):
            page = path.parent / target if target else path
            assert page.exists(), (path, target)
            if anchor and page.suffix == ".md":
                assert anchor in make_anchors(page.read_text()), (path, target, anchor)


def prints_by_itself(text: str) -> bool:
    """Return whether a block prints, but for what functions do that it only defines."""
    nodes: list[ast.AST] = [ast.parse(text)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Name) and node.id == "print":
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            nodes += ast.iter_child_nodes(node)
    return False


def test_what_is_printed_is_shown() -> None:
    """A block of the pages that prints is followed by what it prints."""
    for path in PAGES[1:]:
        blocks = blocks_of(path)
        marks = [*(block.mark for block in blocks[1:]), ""]
        for block, mark in zip(blocks, marks, strict=False):
            if block.language == "python" and prints_by_itself(block.text):
                assert mark == "prints", (path, block.text)


def test_files_that_a_page_shows_are_linked() -> None:
    """A file that the site includes has a link, for readers of the sources."""
    for path in PAGES:
        text = path.read_text()
        for name in re.findall(r"^```\{literalinclude\} (\S+)$", text, re.MULTILINE):
            assert f"({name})" in text, (path, name)


def test_every_call_is_in_a_block() -> None:
    """Each public function is used by a block, so that a renamed one is noticed."""
    blocks = [block for path in PAGES for block in blocks_of(path) if block.is_run]
    text = "".join(block.text for block in blocks if block.language == "python")
    used = {*re.findall(r"\w+", text)}

    for module in MODULES:
        public = vars(import_module(module))
        for name in public["__all__"]:
            if inspect.isfunction(getattr(import_module(module), name)):
                assert name in used, f"{module}.{name} is in no block of README or docs"


def test_top_level_await() -> None:
    """A block may wait at its top; it shares its names; its output is returned."""
    names: dict[str, object] = {}

    assert run_python("import trio\nasync def two(): return 2\n", "page", names) == ""
    assert (
        run_python("await trio.sleep(0)\nprint(await two())\n", "page", names) == "2\n"
    )
    with pytest.raises(NameError, match="three"):
        run_python("print(await three())\n", "page", names)


def test_logged_errors() -> None:
    """A block that logs an error fails: its reader would see a traceback."""
    block = "import logging\nlogging.getLogger('trio_upgrade.server').error('no')\n"

    with pytest.raises(AssertionError, match="no"):
        run_python(block, "page", {})


def test_names_of_the_package() -> None:
    """A public call that was renamed turns the block red that uses it."""
    with pytest.raises(ImportError, match="serve_tpc"):
        run_python("from trio_upgrade import serve_tpc\n", "page", {})


def test_commands() -> None:
    """The commands of a console block, each with its output."""
    text = "$ echo one\none\n$ echo two \\\n    three\ntwo three\n$ true\n"

    assert [*read_commands(text)] == [
        ("echo one", "one\n"),
        ("echo two \\\n    three", "two three\n"),
        ("true", ""),
    ]


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ("", "\n"),
        ("a\n", "a\n\n"),
        ("port …", "port 1337"),
        ("a\n...\nd", "a\nb\nc\nd"),
        ("a\n...", "a"),
    ],
)
def test_same_output(wanted: str, got: str) -> None:
    """Blank ends do not count; `…` is anything in a line, `...` any lines."""
    compare(wanted, got)


@pytest.mark.parametrize(("wanted", "got"), [("a", "b"), ("a …", "a b\nc"), ("", "a")])
def test_other_output(wanted: str, got: str) -> None:
    """Any other difference fails."""
    with pytest.raises(AssertionError, match="wanted"):
        compare(wanted, got)
