"""
One service of a `tokenry dev` whose clock a drill of the tests can set off: `python -m tests.support.skewed_service`.

DRILL_ROLE says which, DRILL_CLOCK names the file with the seconds by which it is off. No service has such a setting.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.history_process import SteppedClock, _serve

if __name__ == "__main__":
    sys.exit(_serve(os.environ["DRILL_ROLE"], SteppedClock(Path(os.environ["DRILL_CLOCK"]))))
