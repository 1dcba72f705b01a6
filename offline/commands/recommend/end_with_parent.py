"""Runs `python ARGUMENTS` as a process that ends with its parent: `python end_with_parent.py PARENT_PID ARGUMENTS`.

The kernel ends it however its parent ended, `kill -9` too. Only Linux can do that; elsewhere a parent that is killed
leaves it running.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit("the process that started this one has ended")
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606 - Python itself


if __name__ == "__main__":
    main()
