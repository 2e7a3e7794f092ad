# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.2.9"]
# ///
"""The project's checks and tools.

``nox`` runs the checks that have to pass, ``nox -s tests`` only one of them; ``nox -l``
lists all sessions.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typing", "examples", "tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
# 3.14 is not yet a classifier: the classifiers name the versions that were tested.
PYTHONS = [*nox.project.python_versions(PYPROJECT), "3.14"]


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff, and the layers of imports with import-linter."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def typing(session: nox.Session) -> None:
    """Check types with mypy and pyright, and that every public name is fully typed."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "type"), "nox")
    session.run("mypy")
    session.run("pyright")
    verify = ("pyright", "--verifytypes", "trio_upgrade", "--ignoreexternal")
    report = session.run(*verify, silent=True, success_codes=[0, 1])
    # Its exit status does not say enough: it can be 0 with a score below 100 %.
    if "Type completeness score: 100%" not in str(report):
        session.error(str(report))
    session.log("every public name is typed")


@nox.session
def examples(session: nox.Session) -> None:
    """Run the example that ends by itself."""
    session.install("-e", ".")
    session.run("python", "examples/echo_pair.py", "0")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on this Python; their coverage has to be 100 %."""
    _run_tests(
        session, "--cov", "--cov-report=term", "--cov-fail-under=100", *session.posargs
    )


@nox.session(default=False)
def abuse(session: nox.Session) -> None:
    """Abuse a server and print which promises held; Linux, about a minute."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.abuse", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Compare how we, Node and nginx frame mutated requests; -- --seconds 180."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.fuzz", *session.posargs)


@nox.session(default=False)
def restart(session: nox.Session) -> None:
    """Replace servers under load, behind proxies too, and count what is lost; minutes."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.restart", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Make 20,000 handshakes of every kind and check that they leave nothing; Linux."""
    session.install("-e", ".")
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session(default=False)
def bench_tls(session: nox.Session) -> None:
    """Compare our TLS with Trio's and asyncio's; Linux, about two minutes."""
    session.install("-e", ".", "trustme")
    session.run("python", "benchmarks/tls.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Compare with Node and others; -- --quick, or -- --write for docs and README."""
    session.install("-e", ".")
    peers = nox.project.dependency_groups(PYPROJECT, "bench")
    # If they cannot be installed, Node and the programs of this machine remain.
    session.install(*peers, success_codes=[0, 1, 2])
    session.run("python", "-m", "benchmarks.compare", *session.posargs)


@nox.session(python=PYTHONS, default=False)
def matrix(session: nox.Session) -> None:
    """Run the tests on every supported Python that is installed."""
    _run_tests(session, *session.posargs)


@nox.session(venv_backend="uv", default=False)
def minimums(session: nox.Session) -> None:
    """Run the tests with the oldest dependencies allowed; needs uv."""
    test = nox.project.dependency_groups(PYPROJECT, "test")
    session.install("--resolution=lowest-direct", "-e", ".", *test)
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def newest(session: nox.Session) -> None:
    """Run the tests with the newest trio and h11, pre-releases included."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # After the others, so that no upper bound of pyproject.toml holds these back.
    session.install("--pre", "--upgrade", "trio", "h11")
    session.run("python", "-X", "dev", "-m", "pytest", *session.posargs)


@nox.session(default=False)
def websockets(session: nox.Session) -> None:
    """Run the tests of WebSocket with the oldest and the newest websockets allowed."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    for wanted in "websockets==17.0.1", "websockets>=17.0.1,<18":
        session.install("--upgrade", wanted)
        session.run(
            *("python", "-X", "dev", "-m", "pytest"), "tests/websocket", "tests/carrier"
        )


@nox.session(default=False)
def tables(session: nox.Session) -> None:
    """Write docs/conformance.md, docs/node.md and docs/ends.md from the tests."""
    session.run("python", "-m", "tests.conformance.tables")


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break the rules, or those named, one by one; the conformance tests have to fail."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    session.run("python", "-m", "tests.conformance.mutate", *session.posargs)


def _run_tests(session: nox.Session, *args: str) -> None:
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # -X dev makes a forgotten socket or generator a failure.
    session.run("python", "-X", "dev", "-m", "pytest", *args)


if __name__ == "__main__":
    nox.main()
