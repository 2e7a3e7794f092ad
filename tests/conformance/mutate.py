# Break the package by one mutant after the other, each in a copy of the project, and
# check that the tests of its requirement fail.
from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from .breaking import break_package, read_sources
from .faults import FAULTS
from .mutants import MUTANTS
from .tables import ROOT, find_marks

FOLDER = Path("tests", "conformance")
WORKERS = 2
# Seconds for one test, so that a mutant that hangs fails soon, and for one run of pytest.
BOUND = 5
TIMEOUT = 300
# Statuses of pytest.
GREEN, RED = 0, 1


def copy_project(folder: Path) -> Path:
    """Copy all that the tests need into a folder, to be broken there; return it."""
    leftovers = shutil.ignore_patterns("__pycache__")
    for name in ("trio_upgrade", "tests", "docs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=leftovers)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(project: Path, *options: str) -> int:
    """Run tests in a copy of the project; return pytest's status."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *options],
        cwd=project,
        timeout=TIMEOUT,
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def files_with(row_id: str) -> list[str]:
    """Return the test files that prove a row; to collect all is slow.

    A requirement has its tests in one folder, a fault where the mended code is tested.
    """
    paths = {mark.path for mark in find_marks() if mark.id == row_id}
    return [
        path.relative_to(ROOT).as_posix()
        for path in sorted(paths)
        if row_id in FAULTS or path.parent.name == FOLDER.name
    ]


def survives(project: Path, row_id: str) -> str | None:
    """Return why the mutant of a row was not noticed, None if its tests fail."""
    sources = read_sources(project / "trio_upgrade")
    try:
        module, broken = break_package(sources, MUTANTS[row_id])
        compile(broken, module, "exec")
    except (ValueError, SyntaxError) as exc:
        return str(exc)
    path = project / module
    # Python compares only the size and the second of a source with its cached code: two
    # mutants can have both in common.
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
    try:
        path.write_text(broken)
        status = run_tests(
            project, f"--bound={BOUND}", "--ids", row_id, *files_with(row_id)
        )
    except subprocess.TimeoutExpired as exc:
        return str(exc)
    finally:
        path.write_text(sources[module])
    if status == RED:
        return None
    return "its tests pass" if status == GREEN else f"pytest's status is {status}"


def main(row_ids: list[str]) -> int:
    """Try these rows, or all rows if none is given; return the number of survivors."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(WORKERS) as pool:
        projects: SimpleQueue[Path] = SimpleQueue()
        for number in range(WORKERS):
            projects.put(copy_project(Path(folder, str(number))))

        def try_row(row_id: str) -> str | None:
            project = projects.get()
            try:
                return survives(project, row_id)
            finally:
                projects.put(project)

        # A failing test proves nothing unless it passes while nothing is broken.
        whole = pool.submit(run_tests, copy_project(Path(folder, "whole")), str(FOLDER))
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
