# The blocks of Markdown pages, and how each kind is run.
#
# Python blocks of a page share their names, and may use `await` at the top: such a
# block runs under Trio, another one as a program would.  What a block prints is compared
# with the `text` block after it, if there is the comment <!-- prints --> in between.
#
# The commands of `console` blocks begin with `$`.  They run in a copy of the sources,
# which is like a fresh clone, the blocks of a page in order.  A line `...` stands for any
# lines, and `…` for anything in a line.
#
# A block that is not run has a comment before it that says why.
from __future__ import annotations

import ast
import atexit
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cache
from inspect import CO_COROUTINE
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from sybil import Region

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    from sybil import Document, Example

ROOT = Path(__file__).parents[2]
# Seconds for one block: a page must not be read for longer than that without a result.
BOUND = 30

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.*?) -->\n+)?"
    r"^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NOT_RUN = "not run: "
_PRINTS = "prints"
# The other languages are for readers: answers, settings of other programs.
_RUN = ("python", "sh", "console")
# Words of the shell with which a command may begin: no programs.
_KEYWORDS = ("for", "if", "until", "while", "wait")
# A name that a page shares, and that no program can have.
_PRINTED = "printed "


class Block(NamedTuple):
    """One fenced block: its language, its text, and the comment before it."""

    language: str
    text: str
    mark: str

    @property
    def why_not(self) -> str:
        """Why it is not run; empty if it is."""
        return self.mark.removeprefix(_NOT_RUN) if _NOT_RUN in self.mark else ""

    @property
    def is_run(self) -> bool:
        """Whether it is run."""
        return self.language in _RUN and not self.why_not


def read_blocks(text: str) -> Iterator[tuple[re.Match[str], Block]]:
    """Yield each block of a page, and where it is."""
    for match in _BLOCK.finditer(text):
        yield match, Block(match["language"], match["text"], match["mark"] or "")


def find_blocks(document: Document) -> Iterator[Region]:
    """Yield the blocks of a page that are run or compared; a parser for Sybil."""
    for match, block in read_blocks(document.text):
        if block.is_run or block.mark == _PRINTS:
            yield Region(match.start("language"), match.end(), block, _evaluate)


def _evaluate(example: Example) -> None:
    block: Block = example.parsed
    names = example.namespace
    if block.mark == _PRINTS:
        assert _PRINTED in names, "the block before it has failed"
        compare(block.text, names[_PRINTED])
    elif block.language == "python":
        # So that tracebacks have the lines of the page.
        source = "\n" * example.line + block.text
        names[_PRINTED] = run_python(source, example.path, names)
    else:
        run_console(block, copy_sources(example.path))


def run_python(source: str, path: str, names: dict[str, object]) -> str:
    """Run a block with the names of its page; return what it prints."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(source, path, "exec", flags, dont_inherit=True)
    printed = StringIO()
    # Not "__main__": a program that serves until it is stopped says that it is one.
    names.setdefault("__name__", "page")
    with redirect_stdout(printed), _bound(), _expect_no_errors():
        if code.co_flags & CO_COROUTINE:
            trio.run(_run_code, code, names)
        else:
            exec(code, names)
    return printed.getvalue()


async def _run_code(code: CodeType, names: dict[str, object]) -> None:
    await eval(code, names)


@contextmanager
def _expect_no_errors() -> Iterator[None]:
    # A reader who pastes the block would see their tracebacks, and not why.
    records = StringIO()
    handler = logging.StreamHandler(records)
    handler.setLevel(logging.ERROR)
    logger = logging.getLogger("trio_upgrade")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    assert not records.getvalue(), records.getvalue()


@contextmanager
def _bound() -> Iterator[None]:
    def stop(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"the block runs for more than {BOUND} seconds")

    if sys.platform == "win32":
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(BOUND)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@cache
def copy_sources(_page: str) -> Path:
    """Return a folder with the files of the project, as a fresh clone has them."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    if not (ROOT / ".git").exists():
        # A release has no other files.
        shutil.copytree(ROOT, folder, dirs_exist_ok=True)
        return folder
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in listing.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def read_commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block with the output that it should have."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
    assert not parts[0].strip(), "a console block begins with a command"
    for part in parts[1:]:
        # A backslash continues a command in the next line.
        match = re.match(r"(?:[^\n]*\\\n)*[^\n]*\n?", part)
        assert match is not None
        command, output = part[: match.end()], part[match.end() :]
        yield command.strip(), output


def run_console(block: Block, folder: Path) -> None:
    """Run the commands of a block in one shell, and compare each output."""
    commands = [*read_commands(block.text)]
    for command, _ in commands:
        program = command.split()[0]
        if program not in _KEYWORDS and shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    mark = "-- end of a command --"
    script = "\n".join(f"{command}\necho; echo '{mark}'" for command, _ in commands)
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env={
            **os.environ,
            "PATH": os.pathsep.join(paths),
            "PYTHONPATH": str(folder),
            "PYTHONUNBUFFERED": "1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=BOUND)
    finally:
        # The commands that a block has left in the background are part of its session.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    outputs = printed.split(f"\n{mark}\n")
    for (_, wanted), got in zip(commands, outputs, strict=False):
        compare(wanted, got)
    assert len(outputs) == len(commands) + 1, printed


def compare(wanted: str, got: str) -> None:
    """Compare an output with the one on the page."""
    lines = [
        r"(?:.*\n)*?"
        if line == "..."
        else ".*".join(map(re.escape, line.split("…"))) + r"\n"
        for line in wanted.strip().splitlines()
    ]
    matches = re.fullmatch("".join(lines), got.strip() + "\n" if got.strip() else "")
    assert matches, f"wanted:\n{wanted}\ngot:\n{got}"
