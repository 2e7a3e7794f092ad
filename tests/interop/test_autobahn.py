"""Autobahn's testsuite, and how its reports are judged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks.autobahn import suite
from benchmarks.autobahn.verdict import judge

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, **results: str) -> Path:
    """Write a report; 7_1_5 means the case 7.1.5, and "OK/UNCLEAN" its two results."""
    cases = {}
    for name, result in results.items():
        behavior, _, close = result.partition("/")
        cases[name.strip("_").replace("_", ".")] = {
            "behavior": behavior,
            "behaviorClose": close or "OK",
        }
    (folder / "index.json").write_text(json.dumps({"agent": cases}))
    return folder


def test_expected_results(tmp_path: Path) -> None:
    """Results are expected only of the cases for which they are known."""
    folder = write(
        tmp_path,
        _1_1_1="OK",
        _7_1_5="FAILED/WRONG CODE",
        _3_2="NON-STRICT",
        _9_1_1="INFORMATIONAL/INFORMATIONAL",
    )
    verdict = judge(folder, 4)

    assert verdict.mistakes == []
    assert str(verdict) == (
        "agent: 4 cases: 1 FAILED, 1 INFORMATIONAL, 1 NON-STRICT, 1 OK"
    )


def test_mistakes(tmp_path: Path) -> None:
    """A case that fails, is late, is closed badly, or is missing, is a mistake."""
    folder = write(
        tmp_path,
        _1_1_1="FAILED",
        _1_1_2="NON-STRICT",
        _1_1_3="UNIMPLEMENTED",
        _1_1_4="OK/UNCLEAN",
        _7_1_5="FAILED/UNCLEAN",
    )
    verdict = judge(folder, 6)

    assert verdict.mistakes == [
        "only 5 of 6 cases were run",
        "1.1.1 is FAILED",
        "1.1.2 is NON-STRICT",
        "1.1.3 is UNIMPLEMENTED",
        "1.1.4 is closed: UNCLEAN",
        "7.1.5 is closed: UNCLEAN",
    ]
    assert "\n  1.1.1 is FAILED\n" in str(verdict)


@pytest.mark.skipif(
    suite.find_wstest() is None,
    reason="needs wstest: nox -s autobahn installs it, with Python 2.7",
)
@pytest.mark.parametrize("options", [(), ("--proxy",)], ids=["straight", "proxied"])
def test_quick_suite(
    options: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """Server and client have the expected results in parts 1 to 7 and 10 (RFC 6455).

    Through our proxy they are the same.
    """
    status = suite.main(["--quick", *options])

    assert status == 0, capfd.readouterr()
