"""Run the abuses: ``python -m benchmarks.abuse [ROW...]``."""

from __future__ import annotations

import sys

import trio

from .abuse import main

if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1:]))
