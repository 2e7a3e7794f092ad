"""Tables with prose for narrow screens, and a title that can be broken after its dot.

Scrolling sideways for each line of prose is no reading.  So on a narrow screen a table
with prose becomes a block for each row, each cell below the one before, with the name of
its column.  Tables of figures stay tables, and scroll.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Characters in a cell, on average, from which on a column is prose.  A longer name of a
# column is a sentence that nobody reads again with each row.
_PROSE = 30
# Up to here a cell shares its line with others.
_SHORT = 14
# With fewer columns a table fits on every screen.
_MANY_COLUMNS = 3


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the handlers."""
    app.connect("doctree-read", _name_cells)
    app.connect("html-page-context", _break_title)
    return {"parallel_read_safe": True}


def _name_cells(_app: Sphinx, document: nodes.document) -> None:
    for table in document.findall(nodes.table):
        heads = [*table.findall(nodes.thead)]
        rows = [
            [*row.findall(nodes.entry)]
            for body in table.findall(nodes.tbody)
            for row in body.findall(nodes.row)
        ]
        if not heads or len(rows[0]) < _MANY_COLUMNS:
            continue
        names = [entry.astext() for entry in heads[0].findall(nodes.entry)]
        lengths = [
            sum(len(cell.astext()) for cell in column)
            for column in zip(*rows, strict=True)
        ]
        if max(lengths) < _PROSE * len(rows):
            continue
        table["classes"].append("prose")
        for row in rows:
            # The first cell is the name of the row.
            for name, length, cell in [*zip(names, lengths, row, strict=True)][1:]:
                if length <= _SHORT * len(rows):
                    cell["classes"].append("short")
                label = nodes.inline("", name, classes=["column"])
                if cell.children and len(name) < _PROSE:
                    cell.children[0].insert(0, label)


def _break_title(
    _app: Sphinx,
    _page: str,
    _template: str,
    context: dict[str, Any],
    _document: nodes.document | None,
) -> None:
    # Not in the document: the title would be another one for the search.
    body = context.get("body", "")
    context["body"] = re.sub(r"(<h1>\w+\.)(?=\w)", r"\1<wbr>", body, count=1)
