# Break the package, one mutant after the other, and see that the tests of that
# requirement notice.
from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from .mutants import MUTANTS, Mutant
from .tables import ROOT, find_marks

FOLDER = Path("tests", "conformance")
WORKERS = 2
# Seconds: for one test, so that a mutant that hangs is soon found out, and for one run.
BOUND = 5
TIMEOUT = 300
GREEN, RED = 0, 1


def break_source(source: str, mutant: Mutant) -> str:
    """Return the source with the mutation.

    Raises:
        ValueError: Its old text is not there exactly once.
    """
    count = source.count(mutant.old)
    if count != 1:
        raise ValueError(f"in {mutant.room} {count} times: {mutant.old!r}")
    return source.replace(mutant.old, mutant.new)


def find_path(package: Path, room: str) -> Path:
    """Return where a module of the package is."""
    return package.joinpath(*room.split(".")).with_suffix(".py")


def make_desk(folder: Path) -> Path:
    """Copy what the tests need, to be broken."""
    leftovers = shutil.ignore_patterns("__pycache__")
    for name in ("trio_upgrade", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(desk: Path, *options: str) -> int:
    """Run tests on a desk; return pytest's status."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *options],
        cwd=desk,
        timeout=TIMEOUT,
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def files_with(row_id: str) -> list[str]:
    """Return the test files here that have tests of a row; to collect all is slow."""
    paths = {mark.path for mark in find_marks() if mark.id == row_id}
    return [
        f"{FOLDER}/{path.name}" for path in paths if path.parent.name == FOLDER.name
    ]


def survives(desk: Path, row_id: str) -> str | None:
    """Return what is wrong with the tests of a row, None if they notice its mutant."""
    mutant = MUTANTS[row_id]
    path = find_path(desk / "trio_upgrade", mutant.room)
    source = path.read_text()
    # Python knows a changed source by size and second, which is not enough here.
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    try:
        broken = break_source(source, mutant)
        compile(broken, path, "exec")
        path.write_text(broken)
        status = run_tests(
            desk, f"--bound={BOUND}", "--ids", row_id, *files_with(row_id)
        )
    except (ValueError, SyntaxError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    finally:
        path.write_text(source)
    if status == RED:
        return None
    return "its tests stay green" if status == GREEN else f"pytest says {status}"


def main(row_ids: list[str]) -> int:
    """Try these rows, or all of them; return how many mutants survive."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        desks: SimpleQueue[Path] = SimpleQueue()
        for number in range(WORKERS):
            desks.put(make_desk(Path(folder, str(number))))

        def try_row(row_id: str) -> str | None:
            desk = desks.get()
            try:
                return survives(desk, row_id)
            finally:
                desks.put(desk)

        # That the tests fail proves nothing unless they pass on what is whole.
        whole = pool.submit(run_tests, make_desk(Path(folder, "whole")), str(FOLDER))
        rows = row_ids or list(MUTANTS)
        survivors = 0
        for row_id, trouble in zip(rows, pool.map(try_row, rows), strict=True):
            survivors += trouble is not None
            print(f"{row_id}: {trouble or 'noticed'}", flush=True)
        if whole.result() != GREEN:
            survivors += 1
            print("the tests fail although nothing is broken")
        return survivors


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 100))
