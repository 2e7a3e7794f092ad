"""Files that say the same thing agree, and files that users look for exist."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from trio_upgrade import Limits

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text()
LISTED = (ROOT / "docs" / "project" / "examples.md").read_text()
LIMITS = (ROOT / "docs" / "topics" / "limits.md").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()

# A path that exists on one machine only; not a part of a URL or of a longer path.
MACHINE_PATH = re.compile(r"(?<![\w./-])/(?:work/|root/|tmp/dev\b)")

# A release has the sources and these tests, but not .git, .github and .ci.
in_checkout = pytest.mark.skipif(
    not (ROOT / ".git").exists(),
    reason="needs a clone: run it in one, not in a release",
)


def shell_commands() -> list[str]:
    """Return the shell commands of the README, block by block."""
    return re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_readme_starts_with_the_example_and_the_tests() -> None:
    """The first command runs an example, the second one runs the tests."""
    first, second, *_ = shell_commands()

    assert "examples/echo_pair.py" in first
    assert "nox -s tests" in second


@in_checkout
def test_ci_runs_the_readme_command() -> None:
    """CI runs the tests with the line of the README, unchanged."""
    lines = shell_commands()[1].splitlines()
    (command,) = [line for line in lines if "nox -s tests" in line]
    ci = (ROOT / ".ci" / "run").read_text()

    assert command in [line.strip() for line in ci.splitlines()]


def test_readme_names_programs_that_exist() -> None:
    """Every Python file that the README or the list of examples names exists."""
    named = re.findall(r"[\w./-]*\w\.py\b", README + LISTED)

    assert named
    for name in named:
        assert (ROOT / name).is_file() or (EXAMPLES / name).is_file(), name


def test_page_names_every_example() -> None:
    """The page on examples mentions each of them, those for deployment too."""
    deployed = (path for path in (EXAMPLES / "deploy").iterdir() if path.is_file())
    for path in (*EXAMPLES.glob("*.py"), *deployed):
        assert re.search(rf"\b{re.escape(path.name)}\b", LISTED), path.name


def test_readme_is_short() -> None:
    """The README is read in five minutes: about 1,000 words; the docs have the rest."""
    assert 800 < len(README.split()) <= 1050


def test_pages_agree_on_whether_it_is_released() -> None:
    """README, changelog and pages all say that it is not yet on PyPI, or none does."""
    pages = [ROOT / "docs" / name / "index.md" for name in ("project", "tutorial")]
    texts = [
        " ".join(text.split())
        for text in (README, CHANGELOG, *[page.read_text() for page in pages])
    ]

    assert len({"not yet on PyPI" in text for text in texts}) == 1


@pytest.mark.ids("F39")
def test_page_tells_every_limit() -> None:
    """The table of limits has each field of Limits with its default, in their order."""
    rows = re.findall(r"^\| `(\w+)`( †)? \| ([^|]*) \|", LIMITS, re.MULTILINE)
    limits = Limits()

    assert [(name, bool(mark), shown) for name, mark, shown in rows] == [
        (name, "None" in kind, show_limit(name, getattr(limits, name)))
        for name, kind in Limits.__annotations__.items()
    ]


def show_limit(name: str, value: float | None) -> str:
    """Return the default of a limit as the page writes it."""
    if value is None:
        return "None"
    if isinstance(value, float):
        return f"{value:g} s"
    counts = "header_fields", "informational", "connections"
    if name in counts:
        return f"{value:,}"
    return f"{value >> 20} MiB" if value >= 1 << 20 else f"{value >> 10} KiB"


def test_machine_path_is_recognised() -> None:
    """The pattern finds such a path at its beginning, and nowhere else."""
    for folder in ("work/x", "root/x", "tmp/dev", "tmp/dev/x"):
        assert MACHINE_PATH.search(f'"/{folder}"')
        assert not MACHINE_PATH.search(f"https://example.com/{folder}")
    assert not MACHINE_PATH.search("/tmp/device")


@in_checkout
@pytest.mark.peer("git")
def test_no_file_has_a_machine_path() -> None:
    """No tracked file names a folder of the machine that it was made on."""
    command = ["git", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]

    assert ROOT / "pyproject.toml" in paths
    for path in paths:
        # A removed file is tracked until its removal is committed.
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not MACHINE_PATH.search(text), path


def test_changelog_starts_with_unreleased_changes() -> None:
    """The first section is for changes that are not released yet."""
    sections = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)

    assert sections[0] == "Unreleased"


def test_version_is_released_or_in_development() -> None:
    """A released version has a section in the changelog, another one has none."""
    match = re.fullmatch(r"(\d+\.\d+\.\d+)(\.dev\d+)?", PROJECT["version"])
    assert match is not None
    release, development = match.groups()
    heading = re.compile(rf"^## \[?{re.escape(release)}\b", re.MULTILINE)

    assert bool(heading.search(CHANGELOG)) == (development is None)


def test_oldest_python_is_the_same_everywhere() -> None:
    """Metadata, linter and type checker agree on the oldest Python, 3.11."""
    tool = PYPROJECT["tool"]

    assert PROJECT["requires-python"] == ">=3.11"
    assert tool["ruff"]["target-version"] == "py311"
    assert tool["pyright"]["pythonVersion"] == "3.11"


def test_classifiers_name_every_supported_python() -> None:
    """The classifiers name each minor version from the oldest one on, without a gap."""
    oldest = int(PROJECT["requires-python"].removeprefix(">=3."))
    pattern = re.compile(r"Programming Language :: Python :: 3\.(\d+)")
    matches = filter(None, map(pattern.fullmatch, PROJECT["classifiers"]))
    minors = [int(match[1]) for match in matches]

    assert minors
    assert minors == list(range(oldest, oldest + len(minors)))
    assert "Programming Language :: Python :: 3 :: Only" in PROJECT["classifiers"]


@in_checkout
def test_workflow_runs_ci() -> None:
    """A fork on GitHub runs the script that guards the main branch."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()

    assert re.search(r"^ *- run: bash \.ci/run$", workflow, re.MULTILINE)


@in_checkout
def test_workflow_tests_every_supported_python() -> None:
    """The matrix on GitHub has every version of the classifiers."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    listed = re.search(r"^ *python: \[(.*)\]$", workflow, re.MULTILINE)
    pattern = re.compile(r"Programming Language :: Python :: (3\.\d+)")
    matches = filter(None, map(pattern.fullmatch, PROJECT["classifiers"]))

    assert listed is not None
    assert {match[1] for match in matches} <= {*re.findall(r"3\.\d+", listed[1])}


def test_security_policy_is_there() -> None:
    """SECURITY.md says how to report, and is part of a release."""
    security = (ROOT / "SECURITY.md").read_text()
    sdist = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]

    assert "Report a vulnerability" in " ".join(security.replace("*", "").split())
    assert "/SECURITY.md" in sdist["include"]


def test_urls_are_of_one_home() -> None:
    """The package index shows where sources, documentation, changes and issues are."""
    urls = PROJECT["urls"]

    assert list(urls) == ["Source", "Documentation", "Changelog", "Issues"]
    assert all(url.startswith(urls["Source"]) for url in urls.values())


def test_contributing_names_every_session() -> None:
    """CONTRIBUTING.md mentions every nox session that is not run by default."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    noxfile = (ROOT / "noxfile.py").read_text()
    sessions = re.findall(
        r"^@nox\.session\(.*default=False\)\ndef (\w+)", noxfile, re.MULTILINE
    )

    assert sessions
    for session in sessions:
        assert re.search(
            rf"^\.venv/bin/nox -s .*\b{session}\b", contributing, re.MULTILINE
        )


def test_contributing_names_every_module() -> None:
    """The tree in CONTRIBUTING.md has a line for each module of the package."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    tree = page.split("```text\n")[2].split("tests/\n")[0]
    named, folder = set(), ""
    for indent, name in re.findall(r"^( {2,4})(\S+\.py|\S+/)", tree, re.MULTILINE):
        if name.endswith("/"):
            folder = name
        else:
            named.add(name if len(indent) == 2 else folder + name)
    package = ROOT / "trio_upgrade"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}

    assert named == {name for name in modules if not name.endswith("/__init__.py")}
