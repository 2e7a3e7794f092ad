"""Some hundred handshakes of every kind leave nothing open."""

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
    """Tasks, descriptors and memory return to where they were before.

    The handshakes succeed, are refused, reset or cancelled.
    """
    command = [sys.executable, "-X", "dev", str(BENCHMARKS / "soak.py"), "400"]
    result = await trio.run_process(
        command, capture_stdout=True, stderr=subprocess.STDOUT, check=False
    )
    output = result.stdout.decode()

    assert result.returncode == 0, output
    assert output.endswith("nothing is left\n")
    assert "400 handshakes" in output
