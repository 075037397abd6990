"""
An idle event loop beside the services: what is late here is late because of the machine.

Run as a script; writes a line a second: Unix time, beats that were more than 0.1 s late, the latest of all (seconds).
"""

import asyncio
import sys
import time

BEAT_SECONDS = 0.05
LATE_SECONDS = 0.1


async def main() -> None:
    second, late, latest = int(time.time()), 0, 0.0
    while True:
        due = time.monotonic() + BEAT_SECONDS
        await asyncio.sleep(BEAT_SECONDS)
        lateness = time.monotonic() - due
        late, latest = late + (lateness >= LATE_SECONDS), max(latest, lateness)
        if (now := int(time.time())) != second:
            sys.stdout.write(f"{second} {late} {latest:.3f}\n")
            sys.stdout.flush()
            second, late, latest = now, 0, 0.0


if __name__ == "__main__":
    asyncio.run(main())
