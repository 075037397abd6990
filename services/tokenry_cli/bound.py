"""
Become a service that does not outlive the one who started it: `python -m tokenry_cli.bound PARENT MODULE`.

It is done after the fork and before anything else, in the new process itself, so that the parent needs no code between
fork and exec: that is unsafe where the parent has threads.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2): the signal that the kernel sends when the parent is gone


def main() -> None:
    """Bind this process to the parent, and run the module in it."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
