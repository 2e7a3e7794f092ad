"""Blocks can be pasted into `python -m trio`, as the tutorial says."""

from __future__ import annotations

import ast
import subprocess
import sys
from code import InteractiveConsole
from typing import TYPE_CHECKING

import pytest

from .blocks import BOUND, ROOT, compare, read_blocks

if TYPE_CHECKING:
    from pathlib import Path
    from types import CodeType

TUTORIAL = [ROOT / "docs" / "tutorial" / f"{name}.md" for name in ("echo", "chat")]
TUTORIAL.append(ROOT / "docs" / "tutorial" / "proxy.md")
BLOCKS = [
    pytest.param(block.text, id=f"{path.relative_to(ROOT)}-{number}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, (_, block) in enumerate(read_blocks(path.read_text()))
    if block.language == "python" and block.is_run
]


class Console(InteractiveConsole):
    """What `python -m trio` is, except that it runs nothing and notes each statement."""

    def __init__(self) -> None:
        super().__init__()
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.statements: list[str] = []
        self.errors: list[BaseException | None] = []

    def paste(self, text: str) -> None:
        """Take the lines of a block, and Enter at its end."""
        for line in [*text.split("\n"), ""]:
            self.push(line)

    def runsource(
        self, source: str, filename: str = "<input>", symbol: str = "single"
    ) -> bool:
        """Note a statement that is complete."""
        more = super().runsource(source, filename, symbol)
        if not more:
            self.statements.append(source)
        return more

    def runcode(self, code: CodeType) -> None:
        """Run nothing."""

    def showsyntaxerror(self, filename: str | None = None, **_options: object) -> None:
        """Note an error."""
        self.errors.append(sys.exc_info()[1])


def paste(text: str) -> Console:
    """Return a console into which a block was pasted."""
    console = Console()
    console.paste(text)
    return console


@pytest.mark.parametrize("text", BLOCKS)
def test_block_can_be_pasted(text: str) -> None:
    """Line by line a block is the same program: no blank line ends a statement early."""
    console = paste(text)

    assert console.errors == []
    assert ast.dump(ast.parse("\n".join(console.statements))) == ast.dump(
        ast.parse(text)
    )


@pytest.mark.parametrize(
    "text",
    [
        "async def main():\n    await one()\n\n    await two()\n",
        "if one:\n    two()\nthree()\n",
    ],
)
def test_block_that_cannot_be_pasted(text: str) -> None:
    """A blank line within a block, or none after one, is an error in a console."""
    assert paste(text).errors != []


@pytest.mark.parametrize("path", TUTORIAL, ids=lambda path: path.stem)
def test_tutorial_in_the_console(path: Path) -> None:
    """A page of the tutorial prints in `python -m trio` what it shows, and no error."""
    blocks = [block for _, block in read_blocks(path.read_text())]
    lines = [
        f"{block.text}\nprint('-- end of a block --')\n"
        for block in blocks
        if block.language == "python"
    ]
    result = subprocess.run(
        [sys.executable, "-m", "trio"],
        input="".join(lines),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
        cwd=ROOT,
    )
    prompts = (">>> ", "... ")
    printed = result.stdout
    for prompt in prompts:
        printed = printed.replace(prompt, "")
    outputs = printed.split("-- end of a block --\n")

    assert "Error" not in result.stderr
    number = -1
    for block in blocks:
        if block.language == "python":
            number += 1
        elif block.mark == "prints":
            compare(block.text, outputs[number])
