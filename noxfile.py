# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.2.9"]
# ///
"""The project's checks and tools.

``nox`` runs the checks that have to pass, ``nox -s tests`` only one of them; ``nox -l``
lists all sessions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typing", "examples", "docs", "package", "tests"]

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
    """Run the examples that end by themselves."""
    session.install("-e", ".")
    session.run("python", "examples/echo_pair.py", "0")
    session.run("python", "examples/api_client.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site of the documentation, strictly, and check it; needs no network."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "docs"))
    site = str(Path(session.cache_dir).resolve() / "site")
    # Everything again, so that each warning comes each time.
    session.run("sphinx-build", "-W", "-n", "-q", "-E", "-a", "docs", site)
    session.run("pytest", "tests/docs/test_site.py", env={"SITE": site})
    session.log(f"the site is in {site}")


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist and, from it, the wheel; check both, and use the wheel alone."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "package"))
    folder = Path(session.create_tmp())
    dist = folder / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", str(wheel))
    # Where no other package is, and no source.
    empty = folder / "empty"
    session.run("python", "-m", "venv", "--clear", str(empty))
    python = str(empty / ("Scripts" if os.name == "nt" else "bin") / "python")
    install = ("-m", "pip", "--disable-pip-version-check", "install", "-q", str(wheel))
    session.run(python, *install, external=True)
    session.run(python, "-I", "tests/project/installed.py", external=True)
    session.run(python, "-I", "examples/echo_pair.py", "0", external=True)


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
def heads(session: nox.Session) -> None:
    """Compare 400,000 mutated message heads of each role with h11 alone; minutes."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Without the dump of a slow test's stack: that is meant for tests that hang.
    command = ("pytest", "tests/http/test_decisive_fields.py", "-o")
    env = {"HEADS": "400000"}
    session.run(*command, "faulthandler_timeout=0", *session.posargs, env=env)


@nox.session(default=False)
def restart(session: nox.Session) -> None:
    """Replace servers under load, behind proxies too, and count what is lost; minutes."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.restart", *session.posargs)


@nox.session(default=False)
def autobahn(session: nox.Session) -> None:
    """Run Autobahn's suite on our WebSockets; -- --quick --proxy; Python 2.7."""
    python2 = _find_python2()
    if python2 is None:
        session.skip("needs Python 2.7: pyenv install 2.7.18")
    session.install("-e", ".[websocket]")
    try:
        wstest = _install_wstest(session, python2)
    except nox.command.CommandFailed:
        session.skip("the suite cannot be installed; it needs a compiler, too")
    command = ("python", "-m", "benchmarks.autobahn", "--wstest", str(wstest))
    session.run(*command, *session.posargs)


@nox.session(default=False)
def room(session: nox.Session) -> None:
    """Send one message to 5,000 members of a room; Linux, about a minute."""
    session.install("-e", ".[websocket]")
    session.run("python", "-m", "benchmarks.room", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Make 20,000 handshakes of every kind and check that they leave nothing; Linux."""
    session.install("-e", ".")
    session.run("python", "benchmarks/soak.py", *session.posargs)


@nox.session(default=False)
def pool_soak(session: nox.Session) -> None:
    """Make 10,000 requests through a pool whose clients and servers give up at random."""
    session.install("-e", ".", *nox.project.dependency_groups(PYPROJECT, "test"))
    command = ("pytest", "tests/client/test_pool_abuse.py", "--bound", "600")
    session.run(*command, *session.posargs, env={"POOL_REQUESTS": "10000"})


@nox.session(default=False)
def proxy_soak(session: nox.Session) -> None:
    """End 10,000 requests and tunnels through both proxies at random; Linux."""
    session.install("-e", ".")
    session.run("python", "benchmarks/proxy_soak.py", *session.posargs)


@nox.session(default=False)
def bench_tls(session: nox.Session) -> None:
    """Compare our TLS with Trio's and asyncio's; Linux, about two minutes."""
    session.install("-e", ".", "trustme")
    session.run("python", "benchmarks/tls.py", *session.posargs)


@nox.session(default=False)
def bench_asgi(session: nox.Session) -> None:
    """Compare ASGI applications on ours with plain apps, and with hypercorn; Linux."""
    session.install("-e", ".", "hypercorn[trio]>=0.17")
    session.run("python", "benchmarks/asgi.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Compare with Node and others; -- --quick, or -- --write for the docs."""
    session.install("-e", ".")
    peers = nox.project.dependency_groups(PYPROJECT, "bench")
    # If they cannot be installed, Node and the programs of this machine remain.
    session.install(*peers, success_codes=[0, 1, 2])
    if shutil.which("npm"):
        folder = str(Path(session.cache_dir) / "node")
        packages = ("install", "--silent", "--prefix", folder, "ws@8", "http-proxy@1")
        session.run("npm", *packages, external=True, success_codes=[*range(256)])
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
    """Write conformance.md, node.md and ends.md in docs/topics from the tests."""
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


def _find_python2() -> str | None:
    # Not every program that is found runs: pyenv has one for each version that it knows.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [str(path) for path in pyenv.glob("versions/2.7*/bin/python2.7")]
    for program in ("python2.7", *found):
        with suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([program, "-V"], capture_output=True, check=True)  # noqa: S603
            return program
    return None


def _install_wstest(session: nox.Session, python2: str) -> Path:
    # In an environment of its own, which is made once.
    folder = Path(session.cache_dir).resolve() / "autobahn"
    wstest = folder / "bin" / "wstest"
    if not wstest.exists():
        maker = folder.with_name("virtualenv-2.7")
        # The last releases that run on Python 2.7; the suite pins what it needs.
        package = ("--quiet", "--target", str(maker), "virtualenv==20.15.1")
        session.run(python2, "-m", "pip", "install", *package, external=True)
        path = {"PYTHONPATH": str(maker)}
        command = (python2, "-m", "virtualenv", "--quiet", str(folder))
        session.run(*command, env=path, external=True)
        suite = ("install", "--quiet", "autobahntestsuite==25.10.1")
        session.run(str(folder / "bin" / "pip"), *suite, external=True)
    return wstest


if __name__ == "__main__":
    nox.main()
