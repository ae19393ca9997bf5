"""Dagster's code server, which takes the runs that it executes along when it ends.

Dagster's own waits for them, and one that follows the orders lasts for an hour. A program with the
arguments of ``dagster code-server``, to be started as the first of a process group.
"""

import os
import runpy
import signal
import sys
from typing import NoReturn


def end_group(_signal: int, _frame: object) -> NoReturn:
    """Ask all processes of the group to end, this one by KeyboardInterrupt, which Dagster heeds."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, end_group)  # which Dagster has SIGTERM do as well
    sys.argv[1:1] = ["code-server"]
    runpy.run_module("dagster", run_name="__main__")
