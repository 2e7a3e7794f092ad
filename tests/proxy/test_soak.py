"""Requests and tunnels that end at random leave nothing open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.skipif(
    not (Path("/proc/self/fd").exists() and BENCHMARKS.exists()),
    reason="needs /proc and the benchmarks: run it in a clone, on Linux",
)
async def test_nothing_is_left() -> None:
    """No task, no descriptor, no connection in use; no answer of another request."""
    script = str(BENCHMARKS / "proxy_soak.py")
    result = await trio.run_process(
        [sys.executable, "-X", "dev", script, "2000"],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = result.stdout.decode()

    assert result.returncode == 0, output
    assert output.endswith("2000 requests and tunnels: nothing is left\n")
    assert "Error" not in output.replace("ResourceError", "")
    for deed in ("ask", "send", "switch", "tunnel", "absolute"):
        assert f" {deed}\n" in output, output
