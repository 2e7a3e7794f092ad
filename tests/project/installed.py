# Checks an installation of the wheel; run by `nox -s package` with the Python of an
# environment that has nothing else in it.
from __future__ import annotations

import sys
from importlib.metadata import distribution, distributions
from importlib.util import find_spec
from pathlib import Path

import trio_upgrade

PACKAGE = Path(trio_upgrade.__file__).parent
# What trio and h11 need, on any platform, and pip.
KNOWN = {
    "attrs",
    "cffi",
    "h11",
    "idna",
    "outcome",
    "pip",
    "pycparser",
    "setuptools",
    "sniffio",
    "sortedcontainers",
    "trio",
    "trio-upgrade",
}


def main() -> None:
    """Check what is installed, then import every public name."""
    assert sys.prefix != sys.base_prefix
    assert PACKAGE.is_relative_to(sys.prefix), PACKAGE
    names = {each.metadata["Name"].lower() for each in distributions()}
    assert names <= KNOWN, names - KNOWN
    own = distribution("trio-upgrade")
    assert own.version == trio_upgrade.__version__
    assert own.files is not None
    others = {"trio_upgrade", f"trio_upgrade-{own.version}.dist-info"}
    # A console script, if there is one, is outside the package.
    folders = {path.parts[0] for path in own.files if path.parts[0] != ".."}
    assert folders == others, folders
    assert (PACKAGE / "py.typed").is_file()
    for name in ("tests", "benchmarks", "examples", "docs"):
        assert find_spec(name) is None, name
    names = vars(trio_upgrade)["__all__"]
    for name in names:
        getattr(trio_upgrade, name)
    sys.stdout.write(f"trio_upgrade {own.version}: {len(names)} names\n")


if __name__ == "__main__":
    main()
