"""Replace servers under load: ``python -m benchmarks.restart [ROW...]``."""

from __future__ import annotations

import sys

import trio

from .restart import main

if __name__ == "__main__":
    sys.exit(trio.run(main, sys.argv[1:]))
