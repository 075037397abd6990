"""
Become another program that does not outlive the one who asked: `python deathsig.py SIGNAL PARENT COMMAND…`.

Run as a script between fork and exec, so that the caller needs no `preexec_fn` (unsafe with threads). On
Linux the kernel sends SIGNAL when the parent ends, even by SIGKILL; elsewhere the parent's own clean-up has
to do.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    number, parent = int(sys.argv[1]), int(sys.argv[2])
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
        # The parent may have ended before the call above; then nobody would ever send the signal.
        if os.getppid() != parent:
            sys.exit("the process that started this one is gone")
    os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - the one purpose of this script


if __name__ == "__main__":
    main()
